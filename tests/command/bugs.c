/* bugs.c - one mistake by name; the comments at line ends are what tests look for. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static char *volatile p;
static char global[64];

static inline __attribute__((always_inline)) void
release(char *what)
{
	free(what);                                /* inlined free */
}

static NOINLINE void
drop(char *what)
{
	release(what);                             /* call of release */
	__asm__ volatile("" : : : "memory");
}

static NOINLINE void
twice(void)
{
	p = malloc(40);                            /* allocation */
	drop(p);                                   /* first free */
	drop(p);                                   /* second free */
	__asm__ volatile("" : : : "memory");
}

static void *
thread(void *arg)
{
	pthread_barrier_wait(arg);
	twice();
	return NULL;
}

static void
two_threads(void)
{
	pthread_barrier_t b;
	pthread_t t[2];
	pthread_barrier_init(&b, NULL, 2);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, thread, &b);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

static void
handler(int sig)
{
	(void)sig;
	twice();
}

static void
in_child(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		twice();
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void
foreign(void)
{
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	drop(p);
}

static void
interior(void)
{
	p = malloc(100);
	drop(p + 4);
}

static void
stale(void)
{
	p = malloc(40);
	free(p);
	p = realloc(p, 1000);                      /* stale realloc */
}

static void
use_after_free(void)
{
	p = malloc(1 << 20);
	free(p);
	p[100] = 1;                                /* bad write */
}

static void
overflow(void)
{
	p = malloc(1 << 20);
	p[1 << 20] = 1;                            /* write behind */
}

static void
late_overflow(void)
{
	p = malloc(40);
	memcpy(p + 40, "spilt!!!", 8);
	drop(p);
}

/* Objects of one size, and no two beside each other are of one mind. */
static char *volatile row[9];

static NOINLINE char *
kept(void)
{
	return malloc(40);                         /* kept */
}

static NOINLINE char *
released(void)
{
	return malloc(40);                         /* released */
}

static void
in_a_row(void)
{
	for (int i = 0; i < 9; i++)
		row[i] = i % 2 != 0 ? released() : kept();
	for (int i = 1; i < 9; i += 2)
		drop(row[i]);
	for (int i = 0; i < 9; i++)
		printf("%p %s\n", (void *)row[i], i % 2 != 0 ? "freed" : "live");
	fflush(stdout);
	row[4][40] = '!';
	drop(row[4]);
}

static void
wrong_size(void)
{
	extern void free_sized(void *, size_t) __attribute__((weak));
	p = malloc(40);
	free_sized(p, 4000);
}

static void
many_places(void)
{
	twice();
	p = malloc(7);
	drop(p + 1);
}

static void
again_and_again(void)
{
	for (int i = 0; i < 1000; i++)
		twice();
}

static void
lost_and_wrong(void)
{
	p = malloc(10);
	p = malloc(20);
	drop(p + 1);
}

static void
bad_requests(void)
{
	volatile size_t less = 2;
	void *q = NULL;
	for (int i = 0; i < 3; i++)
		p = malloc(less - 10);                     /* negative size */
	p = calloc(SIZE_MAX / 2, less + 2);
	if (posix_memalign(&q, 24, 100) != 22 || p != NULL)
		abort();
}

/* Twice at the same place; and nothing of a size that no machine has. */
static void
no_memory(void)
{
	const struct rlimit two_gib = { (size_t)2 << 30, (size_t)2 << 30 };
	volatile int times = 2;
	setrlimit(RLIMIT_AS, &two_gib);
	for (int i = 0; i < times; i++)
		p = malloc((size_t)2 << 30);               /* no memory */
	char *q = malloc(10);
	if (p != NULL || errno != ENOMEM || realloc(q, (size_t)2 << 30) != NULL ||
	    calloc(2 << 10, 1 << 20) != NULL || malloc((size_t)1 << 50) != NULL)
		abort();
	free(q);
}

static const struct {
	const char *name;
	void (*make)(void);
} bugs[] = {
	{ "double-free", twice }, { "two-threads", two_threads }, { "in-child", in_child },
	{ "foreign", foreign }, { "interior", interior }, { "stale", stale },
	{ "use-after-free", use_after_free }, { "overflow", overflow },
	{ "late-overflow", late_overflow }, { "in-a-row", in_a_row }, { "wrong-size", wrong_size },
	{ "bad-requests", bad_requests }, { "no-memory", no_memory }, { "lost-and-wrong", lost_and_wrong }, { "many-places", many_places }, { "again", again_and_again },
};

static void
prepare(const char *how)
{
	if (strcmp(how, "closed") == 0)
		for (int fd = 0; fd < 1024; fd++)
			close(fd);
	if (strcmp(how, "chdir") == 0 && chdir("/") != 0)
		exit(9);
}

int
main(int argc, char **argv)
{
	const char *bug = argc > 1 ? argv[1] : "none";
	if (argc > 2)
		prepare(argv[2]);
	if (strcmp(bug, "global") == 0)
		drop(global);
	if (strcmp(bug, "handler") == 0) {
		signal(SIGUSR1, handler);
		raise(SIGUSR1);
	}
	for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++)
		if (strcmp(bugs[i].name, bug) == 0)
			bugs[i].make();
	if (strcmp(bug, "none") == 0) {
		p = malloc(40);
		drop(p);
	}
	puts("the end");
	return argc > 3 ? atoi(argv[3]) : 0;
}

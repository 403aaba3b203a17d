/* bug.h - one mistake per run, made by functions whose names the test looks for.
 *
 *   bug CLASS SIZE THREADS [ok]
 *
 * THREADS threads allocate and free properly; the first of them then makes the
 * mistake, or, with ok, the same steps without it. bug.c and bug.cc define the four
 * calls below; lines with a name in a comment are where a stack must lead. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define KEEP __attribute__((noinline))

static char *get(size_t n);             /* by the language's own call */
static void put(char *p, size_t n);
static int mistake_of_language(const char *what, size_t n, int ok);

static int is_ok;                       /* the steps without the mistake */

/* A store or load that the compiler must not leave out. */
static KEEP void
touch(char *p, long at)
{
	((volatile char *)p)[at] ^= 0x55;   /* TOUCH */
}

static KEEP char *
make_object(size_t n)
{
	char *p = get(n);               /* MAKE */
	memset(p, 1, n);
	return p;
}

static KEEP void
release_object(char *p, size_t n)
{
	put(p, n);                      /* RELEASE */
	__asm__ volatile("");
}

static KEEP void
release_again(char *p, size_t n)
{
	if (!is_ok)
		put(p, n);              /* AGAIN */
	__asm__ volatile("");
}

static KEEP void
free_wrong(void *p)
{
	free(p);                        /* WRONG */
	__asm__ volatile("");
}

static void
overflow(size_t n, long far)
{
	char *p = make_object(n);
	touch(p, is_ok ? 0 : (long)n + far);
	release_object(p, n);
}

static void
underflow(size_t n, long far)
{
	char *p = make_object(n);
	touch(p, is_ok ? 0 : -far);
	release_object(p, n);
}

static void
after_free(size_t n)
{
	char *p = make_object(n);
	if (is_ok)
		touch(p, (long)n / 2);
	release_object(p, n);
	if (!is_ok)
		touch(p, (long)n / 2);
}

/* Until what was freed first has left the queue and was handed out again. */
static void
churn(size_t n)
{
	for (size_t bytes = 0; bytes < (size_t)6 << 20; bytes += n + 16) {
		char *p = get(n);
		touch(p, 0);
		put(p, n);
	}
}

static void
invalid(const char *what, size_t n)
{
	static char global[64];
	char local[64];
	char *p = make_object(n), *bad = local;
	if (strcmp(what, "free-global") == 0)
		bad = global;
	else if (strcmp(what, "free-interior") == 0)
		bad = p + (n > 1 ? n / 2 : 0) + (n <= 1);
	else if (strcmp(what, "free-mmap") == 0)
		bad = (char *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!is_ok)
		free_wrong(bad);
	release_object(p, n);
}

static KEEP void
use_stale(const char *what, char *p, size_t n)
{
	if (strcmp(what, "stale-realloc") == 0)
		p = (char *)realloc(p, n + 1);  /* STALE */
	else
		n = malloc_usable_size(p);      /* STALE */
	__asm__ volatile("" : : "r"(p), "r"(n));
}

static void
stale(const char *what, size_t n)
{
	char *p = make_object(n);
	release_object(p, n);
	if (!is_ok)
		use_stale(what, p, n);
}

static int
mistake(const char *what, size_t n)
{
	if (strcmp(what, "double-free") == 0) {
		char *p = make_object(n);
		release_object(p, n);
		release_again(p, n);
	} else if (strcmp(what, "overflow") == 0)
		overflow(n, 0);
	else if (strcmp(what, "overflow-16") == 0)
		overflow(n, 15);
	else if (strcmp(what, "overflow-exit") == 0)
		touch(make_object(n), is_ok ? 0 : (long)n);
	else if (strcmp(what, "underflow-exit") == 0)
		touch(make_object(n), is_ok ? 0 : -1);
	else if (strcmp(what, "underflow") == 0)
		underflow(n, 1);
	else if (strcmp(what, "underflow-16") == 0)
		underflow(n, 16);
	else if (strcmp(what, "after-free") == 0)
		after_free(n);
	else if (strcmp(what, "after-free-late") == 0) {
		after_free(n);
		churn(n);
	} else if (strncmp(what, "free-", 5) == 0)
		invalid(what, n);
	else if (strncmp(what, "stale-", 6) == 0)
		stale(what, n);
	else
		return mistake_of_language(what, n, is_ok);
	return 1;
}

static void
work(size_t n)
{
	for (int i = 0; i < 100; i++) {
		char *p = make_object(n), *q = make_object(n / 2 + 1);
		put(p, n);
		put(q, n / 2 + 1);
	}
}

static pthread_barrier_t ready;

/* Beside the mistake only with small objects: in large ones the quarantine is soon
 * full, and the object of the mistake would be somebody else's by its second part. */
static void *
other_thread(void *arg)
{
	size_t n = *(size_t *)arg;
	work(n);
	pthread_barrier_wait(&ready);
	work(n < 4096 ? n : 4096);
	return NULL;
}

int
main(int argc, char **argv)
{
	pthread_t t[8];
	size_t n = argc > 3 ? strtoul(argv[2], NULL, 0) : 0;
	int threads = argc > 3 ? atoi(argv[3]) : 0;
	is_ok = argc > 4;
	if (threads == 0 || pthread_barrier_init(&ready, NULL, (unsigned)threads) != 0)
		return 2;
	for (int i = 1; i < threads; i++)
		if (pthread_create(&t[i], NULL, other_thread, &n) != 0)
			return 2;
	work(n);
	pthread_barrier_wait(&ready);
	if (!mistake(argv[1], n))
		return 2;
	for (int i = 1; i < threads; i++)
		pthread_join(t[i], NULL);
	puts("end");
	return 0;
}

/* life.c - what a program may do in guard mode as in any other: alignments, zeroed
 * memory, sizes as asked for, realloc, fork from threads, allocation in handlers. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(cond) ((cond) ? (void)0 : fail(#cond, __LINE__))

static void
fail(const char *what, int line)
{
	char text[200];
	int n = snprintf(text, sizeof text, "line %d: not so: %s\n", line, what);
	_exit(write(1, text, (size_t)n) == n ? 99 : 98);
}

static void
fill(char *p, size_t bytes)
{
	CHECK(p != NULL);
	memset(p, 0x5a, bytes);
}

static void
sizes(void)
{
	for (size_t bytes = 0; bytes < 300000; bytes += 1 + bytes / 7) {
		char *p = malloc(bytes), *z = calloc(1, bytes);
		CHECK(p != NULL && z != NULL && p != z);
		CHECK(malloc_usable_size(p) == bytes && malloc_usable_size(z) == bytes);
		for (size_t i = 0; i < bytes; i++)
			CHECK(z[i] == 0);
		fill(p, bytes);
		fill(z, bytes);
		free(p);
		free(z);
	}
}

static void
alignments(void)
{
	for (size_t align = 1; align <= (size_t)1 << 22; align *= 2)
		for (size_t bytes = 1; bytes < 70000; bytes = bytes * 5 + 1) {
			char *p = memalign(align, bytes);
			CHECK(((uintptr_t)p & (align - 1)) == 0);
			CHECK(malloc_usable_size(p) == bytes);
			fill(p, bytes);
			free(p);
		}
}

static void
resizing(void)
{
	size_t have = 0;
	unsigned char *p = NULL;
	for (size_t want = 1; want < 3000000; want += want / 3 + 1) {
		p = realloc(p, want);
		CHECK(p != NULL);
		for (size_t i = 0; i < have; i++)
			CHECK(p[i] == (unsigned char)(i * 7));
		for (size_t i = have; i < want; i++)
			p[i] = (unsigned char)(i * 7);
		have = want;
	}
	for (size_t want = have / 2; want > 0; want /= 2) {
		p = realloc(p, want);
		for (size_t i = 0; i < want; i++)
			CHECK(p[i] == (unsigned char)(i * 7));
	}
	free(p);
}

/* Again and again: what leaves the quarantine is used once more, and is zero. */
static void
reuse(void)
{
	static char *held[64];
	for (size_t i = 0; i < 20000; i++) {
		size_t bytes = 1 + i * 37 % (i % 50 == 0 ? 200000 : 3000);
		char **slot = &held[i % 64];
		free(*slot);
		*slot = calloc(1, bytes);
		CHECK(*slot != NULL && (*slot)[0] == 0 && (*slot)[bytes - 1] == 0);
		memset(*slot, 1, bytes);
	}
	for (size_t i = 0; i < 64; i++)
		free(held[i]);
}

static void *
churn(void *arg)
{
	char *held[32] = { NULL };
	for (size_t i = 0; i < 2000; i++) {
		size_t bytes = 1 + (i * 31 + (uintptr_t)arg) % 5000;
		free(held[i % 32]);
		held[i % 32] = malloc(bytes);
		fill(held[i % 32], bytes);
	}
	for (size_t i = 0; i < 32; i++)
		free(held[i]);
	return NULL;
}

static void
forks(void)
{
	pthread_t t[6];
	for (uintptr_t i = 0; i < 6; i++)
		CHECK(pthread_create(&t[i], NULL, churn, (void *)i) == 0);
	for (int i = 0; i < 20; i++) {
		int status;
		char *mine = malloc(100);
		fill(mine, 100);
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			free(mine);
			churn((void *)7);
			_exit(0);
		}
		CHECK(waitpid(child, &status, 0) == child && status == 0);
		free(mine);
	}
	for (int i = 0; i < 6; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
}

static void *volatile from_handler;

static void
on_alarm(int sig)
{
	(void)sig;
	void *old = from_handler, *p = malloc(64);
	if (p != NULL)
		memset(p, 3, 64);
	from_handler = p;
	free(old);
}

static void
handlers(void)
{
	struct itimerval every = { { 0, 2000 }, { 0, 2000 } }, never = { { 0, 0 }, { 0, 0 } };
	signal(SIGALRM, on_alarm);
	CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
	for (uintptr_t i = 0; i < 5; i++)
		churn((void *)i);
	CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
	free(from_handler);
}

int
main(void)
{
	sizes();
	alignments();
	resizing();
	reuse();
	forks();
	handlers();
	puts("fine");
	return 0;
}

/* bug.cc - bug.h with new[] and delete[]. */
#include <new>

#include "bug.h"

static char *
get(size_t n)
{
	return new char[n];
}

static void
put(char *p, size_t n)
{
	(void)n;
	delete[] p;
}

static KEEP void
release_sized(char *p, size_t n)
{
	::operator delete[](p, n);      /* SIZED */
	__asm__ volatile("");
}

static KEEP void
release_plain(char *p)
{
	::operator delete(p);           /* PLAIN */
	__asm__ volatile("");
}

static KEEP void
release_aligned(char *p)
{
	::operator delete[](p, std::align_val_t(64));    /* ALIGNED */
	__asm__ volatile("");
}

static KEEP char *
make_by(const char *what, size_t n)
{
	if (strncmp(what, "malloc", 6) == 0)
		return (char *)malloc(n);                        /* MAKE-BY */
	if (strncmp(what, "aligned", 7) == 0)
		return (char *)::operator new[](n, std::align_val_t(64)); /* MAKE-BY */
	return (char *)::operator new(n);                        /* MAKE-BY */
}

static int
mistake_of_language(const char *what, size_t n, int ok)
{
	if (strcmp(what, "sized") == 0)
		release_sized(make_object(n), ok ? n : n + 1);
	else if (strcmp(what, "array-delete") == 0)
		ok ? release_object(make_object(n), n) : release_plain(make_object(n));
	else if (strcmp(what, "array-free") == 0)
		ok ? release_object(make_object(n), n) : free_wrong(make_object(n));
	else if (strcmp(what, "new-array") == 0)
		ok ? release_plain(make_by(what, n)) : release_object(make_by(what, n), n);
	else if (strcmp(what, "malloc-delete") == 0)
		ok ? free_wrong(make_by(what, n)) : release_plain(make_by(what, n));
	else if (strcmp(what, "aligned-plain") == 0)
		ok ? release_aligned(make_by(what, n)) : release_object(make_by(what, n), n);
	else if (strcmp(what, "plain-aligned") == 0)
		ok ? release_object(make_object(n), n) : release_aligned(make_object(n));
	else
		return 0;
	return 1;
}

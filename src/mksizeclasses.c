/* mksizeclasses.c - writes sizeclasses.h to stdout. Runs on the build host only.
 *
 * Classes: multiples of 16 up to LINEAR_MAX, from there STEPS_PER_DOUBLING
 * equal steps in each doubling up to SMALL_MAX. A request of n bytes rounds up
 * by less than one step, so the waste inside a slot is below 1/9 of it above
 * LINEAR_MAX and below 16 bytes up to there.
 *
 *   16 32 48 ... 240 256 | 288 320 ... 512 | 576 ... 1024 | ... | ... 32768
 *      step 16           |    step 32      |   step 64    |     | step 2048
 *
 * and one of SLOT_MAX, which no request reaches by itself: SMALL_MAX bytes and the
 * canary behind them.
 *
 * A step divides every size of its doubling. So the multiple of a power of two
 * that is not smaller than the request always rounds up to a class that is
 * itself a multiple of it: an aligned request needs no search (msize.h).
 *
 * Span length of a class: the fewest pages that give MIN_SPAN bytes, enough
 * slots for a random choice among them to be worth something, and a tail
 * behind the last slot of at most 1/TAIL_SHARE of the span.
 *
 * Slot number from offset, by multiplication with ceil(2^32 / size) as in Go.
 * With e = divmul * size - 2^32 < size, the product of offset n = q*size + r is
 * q + (r + n*e / 2^32) / size, which rounds down to q as long as
 * n*e / 2^32 < size - r. For a first byte (r = 0) that holds for every class.
 * For the last bytes of a slot it fails in the largest classes, so who wants
 * the slot of an inner address clears the low four bits first: sizes are
 * multiples of 16, the quotient stays the same and r is at most size - 16.
 *
 * The output depends on the constants below only. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum {
	SPAN_PAGE = 8192,
	OS_PAGE_MAX = 65536,       /* spans are rounded up to the OS page */
	STEP = 16,
	LINEAR_MAX = 256,
	STEPS_PER_DOUBLING = 8,
	SMALL_MAX = 32768,
	SLOT_MAX = 36864,          /* the largest request and a tail of our own fit in */

	MIN_SPAN = 16384,
	FINE_MAX = 128,            /* classes up to here get FINE_SLOTS or more */
	FINE_SLOTS = 256,
	MEDIUM_MAX = 256,          /* classes up to here MEDIUM_SLOTS or more: two of n slots */
	MEDIUM_SLOTS = 128,        /* are neighbours with 2/n, which is to stay below 2 % */
	COARSE_MAX = 1024,         /* classes up to here COARSE_SLOTS or more */
	COARSE_SLOTS = 32,
	LARGE_SLOTS = 8,           /* and the rest; doc/decisions.md has the figures */
	TAIL_SHARE = 64,
	MAX_SLOTS = 1024,

	MAX_CLASSES = 255,         /* size_to_class is uint8_t */
};

struct row {
	uint32_t elem_bytes;
	uint32_t divmul;
	uint32_t span_pages;
	uint32_t nelems;
	uint32_t tail_bytes;
};

static struct row rows[MAX_CLASSES + 1];    /* [0] stays 0: large objects */
static unsigned nrows;                      /* the highest class */

static bool
fail(const char *what, uint32_t elem_bytes)
{
	fprintf(stderr, "mksizeclasses: class of %" PRIu32 " bytes: %s\n", elem_bytes, what);
	return false;
}

static uint32_t
row_span_bytes(const struct row *r)
{
	return r->span_pages * (uint32_t)SPAN_PAGE;
}

static void
row_set_span(struct row *r)
{
	uint32_t want = r->elem_bytes <= FINE_MAX ? FINE_SLOTS :
	    r->elem_bytes <= MEDIUM_MAX ? MEDIUM_SLOTS : r->elem_bytes <= COARSE_MAX ? COARSE_SLOTS : LARGE_SLOTS;
	uint32_t bytes;

	r->span_pages = MIN_SPAN / SPAN_PAGE;
	for (;; r->span_pages++) {
		bytes = row_span_bytes(r);
		r->nelems = bytes / r->elem_bytes;
		r->tail_bytes = bytes % r->elem_bytes;
		if (r->nelems >= want && r->tail_bytes <= bytes / TAIL_SHARE)
			return;
	}
}

/* What the fast look-up relies on, see the head comment. The last inner granule
 * of a slot is the worst of it, so one test for each slot is enough; the unit
 * test goes through every byte. */
static bool
row_check_division(const struct row *r)
{
	uint32_t bytes = row_span_bytes(r);
	uint32_t rounded = (bytes + OS_PAGE_MAX - 1) / OS_PAGE_MAX * OS_PAGE_MAX;

	for (uint32_t i = 0; i <= rounded / r->elem_bytes; i++) {
		uint64_t first = (uint64_t)i * r->elem_bytes;
		uint64_t last = first + r->elem_bytes - STEP;
		if (first * r->divmul >> 32 != i)
			return fail("the first byte of a slot gives another slot", r->elem_bytes);
		if (last * r->divmul >> 32 != i)
			return fail("the last granule of a slot gives another slot", r->elem_bytes);
	}
	return true;
}

static bool
add_class(uint32_t elem_bytes)
{
	struct row *r;

	if (nrows == MAX_CLASSES)
		return fail("one class too many", elem_bytes);
	r = &rows[++nrows];
	r->elem_bytes = elem_bytes;
	r->divmul = (uint32_t)((((uint64_t)1 << 32) + elem_bytes - 1) / elem_bytes);
	row_set_span(r);
	if (r->nelems > MAX_SLOTS)
		return fail("more than MAX_SLOTS slots", elem_bytes);
	if (r->span_pages > UINT16_MAX)
		return fail("span_pages does not fit", elem_bytes);
	return row_check_division(r);
}

static bool
make_classes(void)
{
	for (uint32_t size = STEP; size <= LINEAR_MAX; size += STEP)
		if (!add_class(size))
			return false;
	for (uint32_t base = LINEAR_MAX; base < SMALL_MAX; base *= 2)
		for (uint32_t i = 1; i <= STEPS_PER_DOUBLING; i++)
			if (!add_class(base + base / STEPS_PER_DOUBLING * i))
				return false;
	return add_class(SLOT_MAX);
}

static uint32_t
max_of(uint32_t (*value)(const struct row *))
{
	uint32_t max = 0;

	for (unsigned c = 1; c <= nrows; c++)
		if (value(&rows[c]) > max)
			max = value(&rows[c]);
	return max;
}

static uint32_t
row_pages(const struct row *r)
{
	return r->span_pages;
}

static uint32_t
row_slots(const struct row *r)
{
	return r->nelems;
}

static uint32_t
row_rounded_slots(const struct row *r)
{
	return (row_span_bytes(r) + OS_PAGE_MAX - 1) / OS_PAGE_MAX * OS_PAGE_MAX / r->elem_bytes;
}

static void
print_percent(uint64_t part, uint64_t whole)
{
	uint64_t hundredths = (part * 10000 + whole / 2) / whole;

	printf("%6" PRIu64 ".%02" PRIu64 "%%", hundredths / 100, hundredths % 100);
}

/* Largest power of two that divides the slot size: what every slot is aligned to. */
static uint32_t
row_align(const struct row *r)
{
	uint32_t align = r->elem_bytes & (~r->elem_bytes + 1);

	return align < SPAN_PAGE ? align : (uint32_t)SPAN_PAGE;
}

static void
print_head(void)
{
	printf("/* sizeclasses.h - made by mksizeclasses.c; do not edit. It explains the choices.\n"
	    " *\n"
	    " * tail waste  bytes behind the last slot, in %% of the span\n"
	    " * max waste   span full of the smallest request of the class: what was not asked\n"
	    " *             for, tail included, in %% of the span\n"
	    " * min align   every slot is aligned to it (a span begins at a page)\n"
	    " *\n"
	    " * class  bytes/slot  bytes/span  pages  slots  tail bytes  tail waste  max waste"
	    "  min align\n");
	for (unsigned c = 1; c <= nrows; c++) {
		const struct row *r = &rows[c];
		uint32_t bytes = row_span_bytes(r);
		uint32_t unasked = r->elem_bytes - rows[c - 1].elem_bytes - 1;
		printf(" * %5u  %10" PRIu32 "  %10" PRIu32 "  %5" PRIu32 "  %5" PRIu32
		    "  %10" PRIu32 "  ", c, r->elem_bytes, bytes, r->span_pages, r->nelems,
		    r->tail_bytes);
		print_percent(r->tail_bytes, bytes);
		printf(" ");
		print_percent((uint64_t)unasked * r->nelems + r->tail_bytes, bytes);
		printf("  %9" PRIu32 "\n", row_align(r));
	}
	printf(" */\n");
}

static void
print_types(void)
{
	printf("#ifndef SPANGUARD_SIZECLASSES_H\n"
	    "#define SPANGUARD_SIZECLASSES_H\n\n"
	    "#include <stdint.h>\n\n"
	    "enum {\n"
	    "\tSIZE_CLASSES = %u,          /* with class 0: a span of its own */\n"
	    "\tSMALL_MAX_BYTES = %u,    /* larger requests have class 0 */\n"
	    "\tSLOT_MAX_BYTES = %u,     /* the last class: only with a tail (canary) */\n"
	    "\tSIZE_STEP_BYTES = %u,       /* every size is a multiple of it */\n"
	    "\tMAX_SPAN_PAGES = %" PRIu32 ",\n"
	    "\tMAX_SPAN_SLOTS = %" PRIu32 ",\n"
	    "\tMAX_ROUNDED_SLOTS = %" PRIu32 ",   /* span rounded up to OS pages of 64 KiB */\n"
	    "};\n\n"
	    "struct size_class {\n"
	    "\tuint32_t elem_bytes;\n"
	    "\tuint32_t divmul;       /* ceil(2^32 / elem_bytes) */\n"
	    "\tuint16_t span_pages;   /* of 8 KiB, before rounding to the OS page */\n"
	    "\tuint16_t nelems;       /* slots in so many pages */\n"
	    "};\n\n",
	    nrows + 1, (unsigned)SMALL_MAX, (unsigned)SLOT_MAX, (unsigned)STEP, max_of(row_pages),
	    max_of(row_slots), max_of(row_rounded_slots));
}

static void
print_tables(void)
{
	unsigned entries = SLOT_MAX / STEP + 1;
	unsigned c = 1;

	printf("static const struct size_class size_classes[SIZE_CLASSES] = {\n"
	    "\t{ 0, 0, 0, 0 },\n");
	for (unsigned i = 1; i <= nrows; i++)
		printf("\t{ %5" PRIu32 ", %9" PRIu32 ", %3" PRIu32 ", %4" PRIu32 " },\n",
		    rows[i].elem_bytes, rows[i].divmul, rows[i].span_pages, rows[i].nelems);
	printf("};\n\n"
	    "/* Class of a request of n bytes, n <= SLOT_MAX_BYTES: [(n + 15) >> 4]. None is 0,\n"
	    " * so that a request for no bytes finds no window and takes the slow path. */\n"
	    "static const uint8_t size_to_class[%u] = {", entries);
	for (unsigned i = 0; i < entries; i++) {
		while (rows[c].elem_bytes < i * STEP)
			c++;
		printf("%s%2u,", i % 16 == 0 ? "\n\t" : " ", i == 0 ? 0 : c);
	}
	printf("\n};\n\n#endif\n");
}

int
main(void)
{
	if (!make_classes())
		return 1;
	print_head();
	print_types();
	print_tables();
	if (fflush(stdout) != 0 || ferror(stdout)) {
		perror("mksizeclasses");
		return 1;
	}
	return 0;
}

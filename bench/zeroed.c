/* zeroed.c - a calloc-heavy program: tables, records, matrices.
 *
 *   zeroed [rounds]
 *
 * A round takes 3000 records (16 to 400 bytes), 40 hash tables (1 to 64 KiB,
 * sparsely used) and two matrices (256 KiB to 4 MiB, of which a tenth of the
 * rows is used). All memory is checked to be zero before it is written, the
 * small blocks completely, the big ones at the places that are then used; it is
 * dirtied and freed, so an allocator that reuses it must clear it. */
#include "bench.h"

enum { RECORDS = 3000, TABLES = 40, MATRICES = 2, ROW_BYTES = 2048 };

static void *
zeroed_new(size_t count, size_t bytes)
{
	void *p = calloc(count, bytes);

	if (p == NULL)
		bench_fail("calloc(%zu, %zu) returned NULL", count, bytes);
	return p;
}

/* Uses `used` bytes at p: they must be zero, and are not afterwards. */
static void
zeroed_use(unsigned char *p, size_t used)
{
	unsigned any = 0;

	for (size_t i = 0; i < used; i++)
		any |= p[i];
	if (any != 0)
		bench_fail("zeroed: calloc returned memory that is not zero");
	memset(p, 0xa5, used);
}

static void
records_use(void **records, struct rng *r)
{
	for (size_t i = 0; i < RECORDS; i++) {
		size_t bytes = rng_range(r, 16, 400);

		free(records[i]);
		records[i] = zeroed_new(1, bytes);
		zeroed_use(records[i], bytes);
	}
}

static void
tables_use(void **tables, struct rng *r)
{
	for (size_t i = 0; i < TABLES; i++) {
		size_t slots = rng_log_range(r, 128, 8192);

		free(tables[i]);
		tables[i] = zeroed_new(slots, 8);
		for (size_t k = 0; k < slots; k += 24)
			zeroed_use((unsigned char *)tables[i] + k * 8, 8);
	}
}

static void
matrices_use(void **matrices, struct rng *r)
{
	for (size_t i = 0; i < MATRICES; i++) {
		size_t rows = rng_log_range(r, 128, 2048);

		free(matrices[i]);
		matrices[i] = zeroed_new(rows, ROW_BYTES);
		for (size_t k = 0; k < rows; k += 10)
			zeroed_use((unsigned char *)matrices[i] + k * ROW_BYTES, ROW_BYTES);
	}
}

int
main(int argc, char **argv)
{
	size_t rounds = bench_arg(argc, argv, 1, 3000);
	struct rng r = {1618};
	void **records = zeroed_new(RECORDS, sizeof(void *));
	void **tables = zeroed_new(TABLES, sizeof(void *));
	void **matrices = zeroed_new(MATRICES, sizeof(void *));

	for (size_t i = 0; i < rounds; i++) {
		records_use(records, &r);
		tables_use(tables, &r);
		matrices_use(matrices, &r);
	}
	for (size_t i = 0; i < RECORDS; i++)
		free(records[i]);
	for (size_t i = 0; i < TABLES; i++)
		free(tables[i]);
	for (size_t i = 0; i < MATRICES; i++)
		free(matrices[i]);
	free(records);
	free(tables);
	free(matrices);
	return 0;
}

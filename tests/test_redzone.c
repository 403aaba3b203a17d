/* test_redzone.c - every length, every offset, every place of a changed byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "hardening/redzone.h"

enum { LENGTHS = 200, OFFSETS = 17 };

static void
test_each_byte(void **state)
{
	static unsigned char buf[LENGTHS + 2 * OFFSETS];
	(void)state;
	for (size_t n = 0; n < LENGTHS; n++) {
		size_t off = n % OFFSETS;
		unsigned char *p = buf + off;
		memset(buf, 0, sizeof(buf));
		memset(p, REDZONE_BYTE, n);
		assert_true(redzone_intact(p, n, REDZONE_BYTE));
		for (size_t i = 0; i < n; i++) {
			p[i] ^= (unsigned char)(1u << i % 8);
			assert_false(redzone_intact(p, n, REDZONE_BYTE));
			p[i] = REDZONE_BYTE;
		}
	}
}

static void
test_diff(void **state)
{
	unsigned char buf[200];
	struct die_diff d;
	(void)state;
	memset(buf, 0xdf, sizeof(buf));
	buf[70] = 1;
	buf[72] = 2;
	buf[190] = 3;
	redzone_diff(buf, sizeof(buf), 0xdf, &d);
	assert_int_equal(d.base, (uintptr_t)buf + 70);
	assert_int_equal(d.n, DIE_DIFF_BYTES);
	assert_int_equal(d.changed, 3);
	assert_int_equal(d.found[0], 1);
	assert_int_equal(d.found[1], 0xdf);
	assert_int_equal(d.found[2], 2);
	assert_int_equal(d.expected[0], 0xdf);
	buf[199] = 4;
	redzone_diff(buf + 195, 5, 0xdf, &d);
	assert_int_equal(d.base, (uintptr_t)buf + 199);
	assert_int_equal(d.n, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_byte),
		cmocka_unit_test(test_diff),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

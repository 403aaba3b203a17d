/* test_print.c - every formatter against a known text, truncation, whole writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "print.h"

static char buf[256];
static struct print p;

static void
expect(const char *want)
{
	assert_string_equal(buf, want);
	assert_int_equal(p.len, strlen(want));
	print_init(&p, buf, sizeof(buf));
}

static void
numbers(void **state)
{
	(void)state;
	print_init(&p, buf, sizeof(buf));
	print_dec(&p, 0);
	expect("0");
	print_dec(&p, UINT64_MAX);
	expect("18446744073709551615");
	print_sdec(&p, INT64_MIN);
	expect("-9223372036854775808");
	print_sdec(&p, -1);
	print_sdec(&p, 7);
	expect("-17");
	print_hex(&p, 0);
	expect("0x0");
	print_hex(&p, UINT64_MAX);
	expect("0xffffffffffffffff");
	print_hex(&p, 0x602000000010);
	expect("0x602000000010");
}

static void
units(void **state)
{
	(void)state;
	print_init(&p, buf, sizeof(buf));
	print_grouped(&p, 999);
	expect("999");
	print_grouped(&p, 1000);
	expect("1,000");
	print_grouped(&p, 12031456);
	expect("12,031,456");
	print_bytes(&p, 1);
	expect("1 byte");
	print_bytes(&p, 16384);
	expect("16,384 bytes");
	print_size(&p, 0);
	expect("0");
	print_size(&p, 1023);
	expect("1023");
	print_size(&p, 1024);
	expect("1k");
	print_size(&p, 16 << 20);
	expect("16m");
	print_size(&p, (uint64_t)3 << 30);
	expect("3g");
	print_size(&p, (uint64_t)5 << 50);
	expect("5120t");
}

static void
strings(void **state)
{
	static const uint8_t id[] = { 0x00, 0xa5, 0xff };
	(void)state;
	print_init(&p, buf, sizeof(buf));
	print_hex_bytes(&p, id, sizeof(id));
	expect("00a5ff");
	print_quoted(&p, "a\x1b[31m\n\x7f", 64);
	expect("a\\x1b[31m\\x0a\\x7f");
	print_quoted(&p, "abcdef", 3);
	expect("abc...");
	print_quoted(&p, "abc", 3);
	expect("abc");
	print_str(&p, "x\nab");
	print_pad(&p, 4);
	print_char(&p, '|');
	expect("x\nab  |");
}

/* For every capacity and every length: never past cap, always ended, the mark
 * is there exactly when something is missing. */
static void
truncation(void **state)
{
	static const char text[] = "0123456789012345678901234567890123456789012345678901234567890123456789";
	(void)state;
	for (size_t cap = PRINT_MIN_BYTES; cap < 64; cap++) {
		for (size_t n = 0; n < sizeof(text); n++) {
			memset(buf, '#', sizeof(buf));
			print_init(&p, buf, cap);
			print_mem(&p, text, n);
			print_mem(&p, "!", n == 0 ? 0 : 1);
			assert_true(p.len < cap);
			assert_int_equal(buf[p.len], 0);
			assert_int_equal(strlen(buf), p.len);
			assert_int_equal(buf[cap], '#');
			assert_int_equal(p.truncated, strstr(buf, "...[truncated]\n") != NULL);
			size_t shown = p.truncated ? strcspn(buf, "\n") : p.len;
			size_t wanted = n == 0 ? 0 : n + 1;
			assert_int_equal(p.truncated, shown < wanted);
			assert_memory_equal(buf, text, shown < n ? shown : n);
		}
	}
}

static void
flushes(void **state)
{
	int fd[2];
	char got[64];
	(void)state;
	assert_int_equal(pipe(fd), 0);
	print_init(&p, buf, sizeof(buf));
	print_str(&p, "whole");
	errno = EXDEV;
	assert_true(print_flush(&p, fd[1]));
	assert_int_equal(errno, EXDEV);
	assert_int_equal(p.len, 0);
	assert_int_equal(read(fd[0], got, sizeof(got)), 5);
	assert_memory_equal(got, "whole", 5);
	close(fd[0]);
	close(fd[1]);
	assert_false(print_write(fd[1], "x", 1));
	assert_int_equal(errno, EXDEV);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(units),
		cmocka_unit_test(strings),
		cmocka_unit_test(truncation),
		cmocka_unit_test(flushes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

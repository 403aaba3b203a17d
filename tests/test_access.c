/* test_access.c - the length of a memory access, from the bytes that the assembler
 * makes of each instruction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../hardening/access.h"

#if defined(__x86_64__)

/* What compilers and libc's string functions touch memory with. */
#define INSNS(X) \
	X(1, "movb (%rax), %cl", 1) X(2, "movw (%rax), %cx", 2) X(3, "movl (%rax), %ecx", 4) \
	X(4, "movq 8(%rax,%rbx,4), %rcx", 8) X(5, "movb $1, (%rax)", 1) \
	X(6, "movw $1, (%r8)", 2) X(7, "movl $1, (%r8)", 4) X(8, "movq $1, 0x1234(%r8)", 8) \
	X(9, "movzbl (%rax), %ecx", 1) X(10, "movzwl (%rax), %ecx", 2) \
	X(11, "movsbq (%rax), %rcx", 1) X(12, "movswl (%rax), %ecx", 2) \
	X(13, "movslq (%rax), %rcx", 4) X(14, "addb $3, (%rdi)", 1) \
	X(15, "addl %ecx, (%rdi)", 4) X(16, "cmpq (%rdi), %r9", 8) X(17, "incl (%rdi)", 4) \
	X(18, "lock xaddq %rax, (%rdi)", 8) X(19, "lock cmpxchgl %ecx, (%rdi)", 4) \
	X(20, "lock cmpxchg16b (%rdi)", 16) X(21, "cmpxchg8b (%rdi)", 8) \
	X(22, "movups (%rax), %xmm1", 16) X(23, "movaps %xmm9, (%rax)", 16) \
	X(24, "movdqu (%rax), %xmm1", 16) X(25, "movdqa %xmm1, (%rax)", 16) \
	X(26, "movss (%rax), %xmm1", 4) X(27, "movsd %xmm1, (%rax)", 8) \
	X(28, "movd (%rax), %xmm1", 4) X(29, "movq (%rax), %xmm1", 8) \
	X(30, "movq %xmm1, (%rax)", 8) X(31, "movhps %xmm1, (%rax)", 8) \
	X(32, "movlps (%rax), %xmm1", 8) X(33, "addss (%rax), %xmm1", 4) \
	X(34, "mulsd (%rax), %xmm1", 8) X(35, "addps (%rax), %xmm1", 16) \
	X(36, "cvtsi2sdl (%rax), %xmm1", 4) X(37, "cvtsi2sdq (%rax), %xmm1", 8) \
	X(38, "cvttsd2si (%rax), %rcx", 8) X(39, "cvttss2si (%rax), %ecx", 4) \
	X(40, "cvtss2sd (%rax), %xmm1", 4) X(41, "cvtps2pd (%rax), %xmm1", 8) \
	X(42, "ucomisd (%rax), %xmm1", 8) X(43, "comiss (%rax), %xmm1", 4) \
	X(44, "pcmpeqb (%rax), %xmm1", 16) X(45, "pxor (%rax), %xmm1", 16) \
	X(46, "rep movsb", 1) X(47, "rep stosq", 8) X(48, "lodsl", 4) X(49, "scasb", 1) \
	X(50, "vmovdqu (%rax), %ymm1", 32) X(51, "vmovdqu %xmm1, (%rax)", 16) \
	X(52, "vmovups %ymm12, (%r9)", 32) X(53, "vpcmpeqb (%rax), %ymm1, %ymm2", 32) \
	X(54, "vmovdqu64 (%rax), %zmm17", 64) X(55, "vmovdqu64 %ymm17, (%rax)", 32) \
	X(56, "vmovdqu8 %xmm17, 0x40(%rax)", 16) X(57, "vpcmpub $0, (%rax), %ymm17, %k1", 32) \
	X(58, "vmovss (%rax), %xmm1", 4) X(59, "vaddsd (%rax), %xmm1, %xmm2", 8) \
	X(60, "vbroadcastss (%rax), %ymm1", 4) X(61, "vpbroadcastb (%rax), %xmm1", 1) \
	X(62, "pmovzxbw (%rax), %xmm1", 8) X(63, "vpmovsxdq (%rax), %ymm1", 16) \
	X(64, "pextrb $1, %xmm1, (%rax)", 1) X(65, "pinsrd $1, (%rax), %xmm1", 4) \
	X(66, "vextracti128 $1, %ymm1, (%rax)", 16) X(67, "movbe (%rax), %rcx", 8) \
	X(68, "flds (%rax)", 4) X(69, "fldl (%rax)", 8) X(70, "fldt (%rax)", 10) \
	X(71, "fistpll (%rax)", 8) X(72, "sete (%rax)", 1) X(73, "cmovne (%rax), %rcx", 8) \
	X(74, "imulq $3, (%rax), %rcx", 8) X(75, "testb $1, (%rax)", 1) \
	X(76, "notl (%rax)", 4) X(77, "shlq (%rax)", 8) X(78, "pushq (%rax)", 8) \
	X(79, "call *(%rax)", 8) X(80, "movnti %rcx, (%rax)", 8) X(81, "movntdq %xmm1, (%rax)", 16) \
	X(82, "movddup (%rax), %xmm1", 8) X(83, "movsldup (%rax), %xmm1", 16) \
	X(84, "popcntq (%rax), %rcx", 8) X(85, "movq (%rax), %mm1", 8) \
	X(86, "vfmadd231sd (%rax), %xmm1, %xmm2", 8) X(87, "vfmadd231ps (%rax), %ymm1, %ymm2", 32) \
	X(88, "vaddpd (%rax){1to4}, %ymm17, %ymm18", 8) X(89, "btq $3, (%rax)", 8) \
	X(90, "xchgb %cl, (%rax)", 1) X(91, "movl %fs:(%rax), %ecx", 4) \
	X(92, "shrx %rcx, (%rax), %rdx", 8) X(93, "cvttps2dq (%rax), %xmm1", 16)

#define EMIT(id, text, bytes) \
	__asm__(".pushsection .rodata\ninsn_" #id ":\n\t" text "\n\t.fill 16, 1, 0x90\n.popsection"); \
	extern const uint8_t insn_##id[];
INSNS(EMIT)

static const struct {
	const uint8_t *code;
	const char *text;
	size_t bytes;
} cases[] = {
#define ROW(id, text, bytes) { insn_##id, text, bytes },
	INSNS(ROW)
};

static void
lengths(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		size_t got = access_bytes(cases[i].code, 16);
		if (got != cases[i].bytes)
			print_error("%s: %zu, not %zu\n", cases[i].text, got, cases[i].bytes);
		assert_int_equal(got, cases[i].bytes);
	}
}

/* Whatever the bytes are: an answer, and no read beyond n. */
static void
any_bytes(void **state)
{
	uint8_t code[16];
	uint64_t x = 88172645463325252u;
	(void)state;
	for (size_t round = 0; round < 200000; round++) {
		for (size_t i = 0; i < sizeof(code); i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			code[i] = (uint8_t)x;
		}
		assert_true(access_bytes(code + round % 16, 16 - round % 16) <= 64);
	}
	/* of what is cut short before the opcode is known, nothing is told */
	assert_int_equal(access_bytes(code, 0), 0);
	assert_int_equal(access_bytes((const uint8_t *)"\x66\x0f", 2), 0);
	assert_int_equal(access_bytes((const uint8_t *)"\xc5\xfc", 2), 0);
}

#else

static void
lengths(void **state)
{
	(void)state;
	assert_int_equal(access_bytes((const uint8_t *)"\x8b\x08", 2), 0);
}

static void
any_bytes(void **state)
{
	(void)state;
	assert_int_equal(access_bytes(NULL, 0), 0);
}

#endif

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths),
		cmocka_unit_test(any_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

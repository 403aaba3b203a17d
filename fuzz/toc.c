/* toc.c - sgfuzz c: an input of the malloc programs (H1 and its relatives) as a C
 * program of its own that calls the public interface only, so that it runs under
 * any malloc that can be preloaded. That tells a bug of ours from one of the
 * harness.
 *
 * Each logical thread becomes a thread, and a semaphore for each lets one op at a
 * time run, in the order of the input. The program checks what any malloc must
 * give: alignment, zeroes, the content of every object; it prints the op that
 * failed and exits with status 1. What only spanguard has (scavenging, the clock,
 * failures of the system, re-entry) is left out, noscan objects are ordinary ones,
 * and the size of another object is the size it was asked for. */
#include "prog.h"
#include "sgfuzz.h"

#include <stdio.h>
#include <string.h>

static const char prelude[] =
"#define _GNU_SOURCE\n"
"#include <errno.h>\n#include <malloc.h>\n#include <pthread.h>\n#include <semaphore.h>\n"
"#include <stdint.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\n"
"static struct { unsigned char *p; size_t n; unsigned key; } obj[256];\n"
"static unsigned char *last[256];\nstatic unsigned keys, op;\n\n"
"static void fail(const char *what)\n{\n\tprintf(\"op %u: %s\\n\", op, what);\n\texit(1);\n}\n\n"
"static unsigned char byte_of(unsigned key, size_t i)\n{\n"
"\treturn (unsigned char)((key + i) * 2654435761u >> 24);\n}\n\n"
"static void check(unsigned h, size_t n)\n{\n"
"\tfor (size_t i = 0; i < n; i += i < 4096 ? 1 : 509)\n"
"\t\tif (obj[h].p[i] != byte_of(obj[h].key, i))\n\t\t\tfail(\"content\");\n}\n\n"
"static void take(unsigned h, void *p, size_t n, size_t align, int zero)\n{\n"
"\tif (p == NULL)\n\t\treturn;\n\tobj[h].p = p;\n\tobj[h].n = n;\n\tobj[h].key = ++keys;\n"
"\tif ((uintptr_t)p % align != 0)\n\t\tfail(\"alignment\");\n"
"\tfor (size_t i = 0; i < n; i += i < 4096 ? 1 : 509) {\n"
"\t\tif (zero && obj[h].p[i] != 0)\n\t\t\tfail(\"not zero\");\n"
"\t\tobj[h].p[i] = byte_of(keys, i);\n\t}\n}\n\n"
"static void give(unsigned h)\n{\n\tif (obj[h].p == NULL)\n\t\treturn;\n\tcheck(h, obj[h].n);\n"
"\tlast[h] = obj[h].p;\n\tfree(obj[h].p);\n\tobj[h].p = NULL;\n}\n\n"
"static void again(unsigned h, size_t n)\n{\n"
"\tif (obj[h].p == NULL) {\n\t\ttake(h, realloc(NULL, n), n, 1, 0);\n\t\treturn;\n\t}\n"
"\tcheck(h, obj[h].n);\n\tsize_t keep = obj[h].n < n ? obj[h].n : n;\n"
"\tunsigned char *q = realloc(obj[h].p, n);\n"
"\tif (n == 0) {\n\t\tobj[h].p = NULL;\n\t\treturn;\n\t}\n"
"\tif (q == NULL) {\n\t\tcheck(h, obj[h].n);\n\t\treturn;\n\t}\n"
"\tobj[h].p = q;\n\tcheck(h, keep);\n\ttake(h, q, n, 1, 0);\n}\n\n"
"static void *posix(size_t align, size_t n)\n{\n\tvoid *p = NULL;\n"
"\treturn posix_memalign(&p, align, n) == 0 ? p : NULL;\n}\n\n";

static const char postlude[] =
"static sem_t turn[4], done;\nstatic unsigned now;\n\n"
"static void *thread(void *arg)\n{\n\tunsigned t = (unsigned)(uintptr_t)arg;\n"
"\tfor (;;) {\n\t\tsem_wait(&turn[t]);\n\t\tif (now == STEPS)\n\t\t\treturn NULL;\n"
"\t\top = now;\n\t\tstep(now);\n\t\tsem_post(&done);\n\t}\n}\n\n"
"int main(void)\n{\n\tpthread_t id[4];\n\tsem_init(&done, 0, 0);\n"
"\tfor (unsigned t = 0; t < 4; t++) {\n\t\tsem_init(&turn[t], 0, 0);\n"
"\t\tpthread_create(&id[t], NULL, thread, (void *)(uintptr_t)t);\n\t}\n"
"\tfor (now = 0; now < STEPS; now++) {\n\t\tsem_post(&turn[thread_of[now]]);\n"
"\t\tsem_wait(&done);\n\t}\n"
"\tfor (unsigned t = 0; t < 4; t++)\n\t\tsem_post(&turn[t]);\n"
"\tfor (unsigned t = 0; t < 4; t++)\n\t\tpthread_join(id[t], NULL);\n"
"\tfor (unsigned h = 0; h < 256; h++)\n\t\tgive(h);\n\treturn 0;\n}\n";

static struct sg_prog prog;
static bool with_bugs;         /* of H9; in all others such an op does nothing */

static void
put_alloc(unsigned h, const char *call, size_t n, size_t align, bool zero)
{
	printf("\t\tgive(%u);\n\t\ttake(%u, %s, %zuu, %zuu, %d);\n", h, h, call, n, align, zero);
	prog.object[h].usable = n;
}

static size_t
alignment(const struct sgf_op *op)
{
	size_t a = (size_t)1 << (op->a >> 4);

	return a < sizeof(void *) ? sizeof(void *) : a;
}

static void
put_bug(const struct sgf_op *op, unsigned which)
{
	unsigned h = op->handle;

	printf("\t\tif (obj[%u].p == NULL)\n\t\t\tbreak;\n", h);
	switch (which) {
	case 0:
	case 1:
		printf("\t\tgive(%u);\n\t\tfree(last[%u]);   /* double free */\n", h, h);
		break;
	case 2:
		printf("\t\tfree(obj[%u].p + 8);   /* interior */\n", h);
		break;
	case 3:
		printf("\t\tfree(&keys);   /* not from malloc */\n");
		break;
	case 6:
		printf("\t\tgive(%u);\n\t\tlast[%u] = realloc(last[%u], 9);   /* freed */\n", h, h, h);
		break;
	case 7:
		printf("\t\tgive(%u);\n\t\tkeys += (unsigned)malloc_usable_size(last[%u]);"
		    "   /* freed */\n", h, h);
		break;
	case 8:
		printf("\t\tfree(last[%u]);   /* long freed */\n", h);
		break;
	case 10:
		printf("\t\tobj[%u].p[malloc_usable_size(obj[%u].p)] ^= 1;   /* overflow */\n", h, h);
		break;
	case 11:
		printf("\t\tgive(%u);\n\t\tlast[%u][0] ^= 1;   /* write after free */\n", h, h);
		break;
	default:
		break;
	}
}

static void
put_burst(const struct sgf_op *op, enum sg_op kind)
{
	struct sgf_op size = *op;
	size_t n;

	size.a = op->b;
	size.b = (uint8_t)(op->imm >> 24);
	n = sg_prog_size(&prog, &size) & 8191;
	for (unsigned i = 0; i <= (op->a & 63u); i++)
		prog.object[(uint8_t)(op->handle + i)].usable = n;
	printf("\t\tfor (unsigned i = 0; i <= %u; i++) {\n\t\t\tunsigned h = (%u + i) %% 256;\n"
	    "\t\t\tgive(h);\n\t\t\ttake(h, %s%zuu), %zuu, 16, %d);\n\t\t}\n", op->a & 63u,
	    op->handle, kind == OP_BURST_ZERO ? "calloc(1, " : "malloc(", n, n,
	    kind == OP_BURST_ZERO);
}

static void
put_op(const struct sgf_op *op)
{
	enum sg_op kind = sg_prog_op(op);
	size_t n = sg_prog_size(&prog, op);
	char call[96];

	switch (kind) {
	case OP_FREE:
	case OP_CFREE:
	case OP_FREE_SIZED:
	case OP_FREE_ALIGNED_SIZED:
	case OP_DELETE:
	case OP_DELETE_SIZED:
		printf("\t\tgive(%u);\n", op->handle);
		return;
	case OP_REALLOC:
	case OP_REALLOCARRAY:
	case OP_REALLOC_NOSCAN:
		printf("\t\tagain(%u, %zuu);\n", op->handle, n);
		return;
	case OP_BURST_FREE:
		printf("\t\tfor (unsigned i = 0; i <= %u; i++)\n\t\t\tgive((%u + i * %u) %% 256);\n",
		    op->a & 63u, op->handle, (op->a >> 6) + 1);
		return;
	case OP_CALLOC:
	case OP_CALLOC_NOSCAN:
		snprintf(call, sizeof(call), "calloc(1, %zuu)", n);
		break;
	case OP_POSIX_MEMALIGN:
	case OP_ALIGNED_ALLOC:
	case OP_MEMALIGN:
		snprintf(call, sizeof(call), "posix(%zuu, %zuu)", alignment(op), n);
		put_alloc(op->handle, call, n, alignment(op), false);
		return;
	case OP_MALLOC:
	case OP_NEW:
	case OP_NOSCAN:
	case OP_VALLOC:
	case OP_PVALLOC:
		snprintf(call, sizeof(call), "malloc(%zuu)", n);
		break;
	case OP_TRIM:
		printf("\t\tmalloc_trim(0);\n");
		return;
	case OP_BUG:
	case OP_OVERFLOW:
		if (with_bugs)
			put_bug(op, kind == OP_OVERFLOW ? 10 : op->a % 13);
		return;
	default:
		printf("\t\t/* %s: not of the public interface */\n", sg_prog_language.op[op->code]);
		return;
	}
	put_alloc(op->handle, call, n, kind == OP_CALLOC || kind == OP_MALLOC ? 16 : 1,
	    kind == OP_CALLOC || kind == OP_CALLOC_NOSCAN);
}

static void
put_step(const struct sgf_op *op, size_t i)
{
	enum sg_op kind = sg_prog_op(op);

	printf("\tcase %zu:\n", i);
	if (kind == OP_BURST || kind == OP_BURST_ZERO)
		put_burst(op, kind);
	else
		put_op(op);
	printf("\t\tbreak;\n");
}

int
sgfuzz_c(const struct sg_harness *h, const char *path)
{
	static uint8_t data[SGF_MAX_BYTES];
	size_t bytes = sgfuzz_read(path, data), n = sgf_ops(bytes);
	struct sgf_op op;

	if (h->language != &sg_prog_language) {
		fprintf(stderr, "sgfuzz: %s has no malloc programs\n", h->name);
		return 2;
	}
	with_bugs = strcmp(h->name, "crime") == 0;
	printf("/* Made by `sgfuzz c`. */\n%s#define STEPS %zuu\n", prelude, n);
	printf("static const unsigned char thread_of[STEPS + 1] = {");
	for (size_t i = 0; i < n; i++) {
		sgf_read_op(data, bytes, i, &op);
		printf(" %u,", op.thread);
	}
	printf(" 0 };\n\nstatic void step(unsigned i)\n{\n\tswitch (i) {\n");
	for (size_t i = 0; i < n; i++) {
		sgf_read_op(data, bytes, i, &op);
		put_step(&op, i);
	}
	printf("\t}\n}\n\n%s", postlude);
	return 0;
}

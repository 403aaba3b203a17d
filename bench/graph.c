/* graph.c - a compiler-like program: trees of small nodes, walked and rewritten.
 *
 *   graph [files [nodes-per-file [kept-files]]]
 *
 * A "file" is a random expression tree (five kinds of node, 24 to 48 bytes plus
 * child arrays) and a hash table of its names. It is evaluated, folded (constant
 * subtrees are freed and replaced by a leaf), evaluated again - the value must
 * be the same - and kept; the oldest kept file is freed. Most of the time goes
 * to following pointers, so where the allocator puts neighbours matters. */
#include "bench.h"

enum { NAMES = 4096, MAX_ARGS = 6, DEPTH = 40, ROOT_ARGS = 1000 };

enum kind { LEAF, NAME, UNARY, BINARY, CALL };

struct name {
	struct name *next;
	uint64_t value;
	char text[];
};

/* What all nodes begin with; `kind` says which of the structs below it is. */
struct node {
	enum kind kind;
	uint32_t nargs;
	uint64_t place;   /* file and line */
};

struct leaf {
	struct node head;
	uint64_t value;
};

struct use {
	struct node head;
	struct name *name;
};

struct inner {   /* UNARY has one side, BINARY two */
	struct node head;
	struct node *sides[];
};

struct call {
	struct node head;
	struct node **args;
	uint64_t flags[3];
};

struct file {
	struct node *root;
	struct name *names[NAMES];
	size_t budget;
	struct rng rng;
};

static struct name *
name_intern(struct file *f)
{
	size_t at = rng_below(&f->rng, NAMES * 2);
	char text[40];
	size_t len = 4 + at % 32;
	struct name **chain = &f->names[at % NAMES];
	struct name *n;

	memset(text, 'x', len);
	for (size_t i = 0, v = at; i < 4; i++, v /= 16)
		text[i] = (char)('a' + v % 16);
	text[len] = '\0';
	for (n = *chain; n != NULL; n = n->next) {
		if (strcmp(n->text, text) == 0)
			return n;
	}
	n = block_raw(sizeof(*n) + len + 1);
	memcpy(n->text, text, len + 1);
	n->value = at;
	n->next = *chain;
	*chain = n;
	return n;
}

static void *
node_new(enum kind kind, size_t bytes, uint32_t nargs)
{
	struct node *n = block_raw(bytes);

	n->kind = kind;
	n->nargs = nargs;
	n->place = nargs;
	return n;
}

static struct node *
leaf_new(uint64_t value)
{
	struct leaf *n = node_new(LEAF, sizeof(*n), 0);

	n->value = value;
	return &n->head;
}

static struct call *
call_new(uint32_t nargs)
{
	struct call *n = node_new(CALL, sizeof(*n), nargs);

	n->args = block_raw(nargs * sizeof(struct node *));
	memset(n->flags, 0, sizeof(n->flags));
	return n;
}

/* The children of a node; *count is 0 for leaves and names. */
static struct node **
node_children(struct node *n, uint32_t *count)
{
	*count = n->nargs;
	return n->kind == CALL ? ((struct call *)n)->args : ((struct inner *)n)->sides;
}

static struct node *
tree_new(struct file *f, size_t depth)
{
	size_t roll = rng_below(&f->rng, 16);
	struct node **child;
	struct node *n;
	struct use *use;
	uint32_t count;

	if (depth >= DEPTH || f->budget == 0 || (roll < 2 && depth > 6))
		return leaf_new(rng_next(&f->rng) & 0xffff);
	f->budget--;
	if (roll < 5 && depth > 6) {
		use = node_new(NAME, sizeof(*use), 0);
		use->name = name_intern(f);
		return &use->head;
	}
	if (roll < 13) {
		count = roll < 7 ? 1 : 2;
		n = node_new(count == 1 ? UNARY : BINARY,
			     sizeof(struct inner) + count * sizeof(struct node *), count);
	} else {
		n = &call_new((uint32_t)rng_range(&f->rng, 1, MAX_ARGS))->head;
	}
	child = node_children(n, &count);
	for (uint32_t i = 0; i < count; i++)
		child[i] = tree_new(f, depth + 1);
	return n;
}

static uint64_t
tree_eval(struct node *n)
{
	struct node **child;
	uint32_t count;
	uint64_t v = n->kind == UNARY;

	if (n->kind == LEAF)
		return ((struct leaf *)n)->value;
	if (n->kind == NAME)
		return ((struct use *)n)->name->value;
	child = node_children(n, &count);
	for (uint32_t i = 0; i < count; i++)
		v = v * 31 + tree_eval(child[i]);
	return v;
}

static void
tree_free(struct node *n)
{
	uint32_t count;
	struct node **child = node_children(n, &count);

	for (uint32_t i = 0; i < count; i++)
		tree_free(child[i]);
	if (n->kind == CALL)
		free(child);
	free(n);
}

/* Replaces constant subtrees by a leaf, from the bottom up. Calls stay. */
static struct node *
tree_fold(struct node *n)
{
	uint32_t count;
	struct node **child = node_children(n, &count);
	bool constant = n->kind == UNARY || n->kind == BINARY;
	struct node *leaf;

	for (uint32_t i = 0; i < count; i++) {
		child[i] = tree_fold(child[i]);
		constant = constant && child[i]->kind == LEAF;
	}
	if (!constant)
		return n;
	leaf = leaf_new(tree_eval(n));
	tree_free(n);
	return leaf;
}

static struct file *
file_new(size_t seed, size_t nodes)
{
	struct file *f = calloc(1, sizeof(*f));
	struct call *root = call_new(ROOT_ARGS);
	uint64_t before;

	if (f == NULL)
		bench_fail("graph: no memory for a file");
	f->rng.state = seed;
	f->budget = nodes;
	f->root = &root->head;
	for (uint32_t i = 0; i < ROOT_ARGS; i++)
		root->args[i] = tree_new(f, 2);
	before = tree_eval(f->root);
	for (int pass = 0; pass < 3; pass++) {
		f->root = tree_fold(f->root);
		if (tree_eval(f->root) != before)
			bench_fail("graph: the value of file %zu changed", seed);
	}
	return f;
}

static void
file_free(struct file *f)
{
	struct name *n, *next;

	if (f == NULL)
		return;
	tree_free(f->root);
	for (size_t i = 0; i < NAMES; i++) {
		for (n = f->names[i]; n != NULL; n = next) {
			next = n->next;
			free(n);
		}
	}
	free(f);
}

int
main(int argc, char **argv)
{
	size_t files = bench_arg(argc, argv, 1, 60);
	size_t nodes = bench_arg(argc, argv, 2, 200000);
	size_t kept = bench_arg(argc, argv, 3, 6);
	struct file **ring = calloc(kept, sizeof(struct file *));

	if (ring == NULL)
		bench_fail("graph: no memory for the ring");
	for (size_t i = 0; i < files; i++) {
		file_free(ring[i % kept]);
		ring[i % kept] = file_new(i + 1, nodes);
	}
	for (size_t i = 0; i < kept; i++)
		file_free(ring[i]);
	free(ring);
	return 0;
}

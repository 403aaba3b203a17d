/* mspanset.c - see mspanset.h for the picture and the argument. */
#include "mspanset.h"

#include "die.h"
#include "lock.h"
#include "persistentalloc.h"

/* A block is 64-byte aligned, which leaves the pool's head word 22 bits beside
 * the address for a count that tells a block from the same block put back. */
enum {
	BLOCK_ALIGN_SHIFT = 6,
	POOL_TAG_BITS = 64 - (ADDR_BITS - BLOCK_ALIGN_SHIFT),
};

struct span_set_block {
	atomic_ptr next;       /* in the pool: the block below */
	atomic_u32 popped;     /* entries emptied; whoever makes it 512 frees the block */
	atomic_ptr slots[SPAN_SET_BLOCK_SLOTS] ALIGNED(1 << BLOCK_ALIGN_SHIFT);
};

struct span_set_spine {
	uint32_t cap_blocks;   /* a power of two; constant */
	atomic_ptr blocks[];   /* position p: [p / 512 % cap_blocks] */
};

static struct mutex grow_lock = MUTEX_INIT(LOCK_SPANSET);
static atomic_u64 block_pool;      /* block address >> 6 << 22 | count */

/* ---- positions ---- */

static uint32_t
index_head(uint64_t index)
{
	return (uint32_t)(index >> 32);
}

static uint32_t
index_tail(uint64_t index)
{
	return (uint32_t)index;
}

static uint64_t
index_make(uint32_t head, uint32_t tail)
{
	return (uint64_t)head << 32 | tail;
}

static uint32_t
block_start(uint32_t pos)
{
	return pos & ~(uint32_t)(SPAN_SET_BLOCK_SLOTS - 1);
}

static atomic_ptr *
spine_entry(struct span_set_spine *spine, uint32_t pos)
{
	return &spine->blocks[pos / SPAN_SET_BLOCK_SLOTS & (spine->cap_blocks - 1)];
}

/* The block of a position that is known to have one. Loaded after the index
 * (acquire), the spine is at least as new as the block. */
static struct span_set_block *
block_at(const struct span_set *set, uint32_t pos)
{
	return aptr_load_acquire(spine_entry(aptr_load_acquire(&set->spine), pos));
}

static atomic_ptr *
block_slot(struct span_set_block *block, uint32_t pos)
{
	return &block->slots[pos % SPAN_SET_BLOCK_SLOTS];
}

/* ---- the pool: a stack without a lock, as Go's lfstack ---- */

static struct span_set_block *
pool_top(uint64_t word)
{
	return (struct span_set_block *)(uintptr_t)(word >> POOL_TAG_BITS << BLOCK_ALIGN_SHIFT);
}

static uint64_t
pool_word(const struct span_set_block *top, uint64_t before)
{
	uint64_t tag = (before + 1) & (((uint64_t)1 << POOL_TAG_BITS) - 1);

	return (uint64_t)(uintptr_t)top >> BLOCK_ALIGN_SHIFT << POOL_TAG_BITS | tag;
}

static void
pool_push(struct span_set_block *block)
{
	uint64_t word = a64_load_acquire(&block_pool);

	a32_store_relaxed(&block->popped, 0);
	do
		aptr_store_relaxed(&block->next, pool_top(word));
	while (!a64_cas(&block_pool, &word, pool_word(block, word)));
}

/* The block below may be read when the top has just been taken by another
 * thread: it is still a block, and the count makes the exchange fail. */
static struct span_set_block *
pool_pop(void)
{
	uint64_t word = a64_load_acquire(&block_pool);
	struct span_set_block *top;

	while ((top = pool_top(word)) != NULL) {
		if (a64_cas(&block_pool, &word, pool_word(aptr_load_relaxed(&top->next), word)))
			return top;
	}
	return NULL;
}

static struct span_set_block *
block_alloc(struct persistent *meta)
{
	struct span_set_block *block = pool_pop();

	if (block == NULL)
		block = persistent_alloc(meta, sizeof(struct span_set_block),
		    _Alignof(struct span_set_block));
	return block;
}

/* ---- growing ---- */

/* A spine with room for more than the blocks in [first, end), or NULL. The old
 * one stays as it is for those who have just read its address. */
static struct span_set_spine *
spine_reserve_locked(struct span_set *set, struct persistent *meta, uint32_t first, uint32_t end)
{
	struct span_set_spine *old = aptr_load_relaxed(&set->spine);
	struct span_set_spine *spine;
	uint32_t cap_blocks = SPAN_SET_MIN_BLOCKS;

	if (old != NULL) {
		if ((end - first) / SPAN_SET_BLOCK_SLOTS < old->cap_blocks)
			return old;
		cap_blocks = 2 * old->cap_blocks;
	}
	if (cap_blocks > SPAN_SET_MAX_BLOCKS)
		return NULL;
	spine = persistent_alloc(meta, sizeof(*spine) + cap_blocks * sizeof(spine->blocks[0]),
	    _Alignof(struct span_set_spine));
	if (spine == NULL)
		return NULL;
	spine->cap_blocks = cap_blocks;
	for (uint32_t pos = first; pos != end; pos += SPAN_SET_BLOCK_SLOTS)
		aptr_store_relaxed(spine_entry(spine, pos), block_at(set, pos));
	aptr_store_release(&set->spine, spine);
	return spine;
}

/* Positions [tail, end) are free and have a block. `end` read before or after
 * the tail it is compared with only makes the caller try again. */
static bool
has_block(uint32_t tail, uint32_t end)
{
	return end - tail - 1 < (uint32_t)SPAN_SET_MAX_BLOCKS * SPAN_SET_BLOCK_SLOTS;
}

/* Gives the set one more block, unless somebody else has. */
static bool
install_block(struct span_set *set, struct persistent *meta)
{
	struct span_set_block *block;
	struct span_set_spine *spine;
	bool ok = false;

	mutex_lock(&grow_lock);
	uint64_t index = a64_load_acquire(&set->index);
	uint32_t end = a32_load_relaxed(&set->end);
	if (has_block(index_tail(index), end)) {
		ok = true;
		goto out;
	}
	/* head only moves up: what looks occupied may be free by now, never the
	 * other way round */
	spine = spine_reserve_locked(set, meta, block_start(index_head(index)), end);
	if (spine == NULL)
		goto out;
	block = block_alloc(meta);
	if (block == NULL)
		goto out;
	aptr_store_release(spine_entry(spine, end), block);
	a32_store_release(&set->end, end + SPAN_SET_BLOCK_SLOTS);
	ok = true;
out:
	mutex_unlock(&grow_lock);
	return ok;
}

/* ---- push and pop ---- */

bool
span_set_push(struct span_set *set, struct persistent *meta, struct mspan *s)
{
	uint64_t index = a64_load_acquire(&set->index);
	struct span_set_block *block;
	uint32_t tail;

	for (;;) {
		tail = index_tail(index);
		if (unlikely(!has_block(tail, a32_load_acquire(&set->end)))) {
			if (!install_block(set, meta))
				return false;
			index = a64_load_acquire(&set->index);
			continue;
		}
		block = block_at(set, tail);
		if (a64_cas(&set->index, &index, index_make(index_head(index), tail + 1)))
			break;
	}
	aptr_store_release(block_slot(block, tail), s);
	return true;
}

struct mspan *
span_set_pop(struct span_set *set)
{
	uint64_t index = a64_load_acquire(&set->index);
	struct span_set_block *block;
	struct mspan *s;
	uint32_t head;

	do {
		head = index_head(index);
		if (head == index_tail(index))
			return NULL;
		block = block_at(set, head);
	} while (!a64_cas(&set->index, &index, index_make(head + 1, index_tail(index))));

	atomic_ptr *slot = block_slot(block, head);
	while ((s = aptr_load_acquire(slot)) == NULL)
		cpu_relax();
	aptr_store_relaxed(slot, NULL);
	/* Not always the one with the last entry: whoever finishes last */
	if (a32_fetch_add(&block->popped, 1) == SPAN_SET_BLOCK_SLOTS - 1)
		pool_push(block);
	return s;
}

size_t
span_set_len(const struct span_set *set)
{
	uint64_t index = a64_load_relaxed(&set->index);

	return index_tail(index) - index_head(index);
}

void
span_set_reset(struct span_set *set)
{
	uint64_t index = a64_load_acquire(&set->index);
	uint32_t end = a32_load_acquire(&set->end);

	if (index_head(index) != index_tail(index))
		die_corruption("SPANSET-reset", set);
	for (uint32_t pos = block_start(index_head(index)); pos != end; pos += SPAN_SET_BLOCK_SLOTS)
		pool_push(block_at(set, pos));
	a64_store_relaxed(&set->index, 0);
	a32_store_release(&set->end, 0);
}

/* ---- with the world quiet ---- */

void
span_set_for_each(const struct span_set *set, void (*fn)(struct mspan *s, void *arg), void *arg)
{
	uint64_t index = a64_load_acquire(&set->index);

	for (uint32_t pos = index_head(index); pos != index_tail(index); pos++)
		fn(aptr_load_acquire(block_slot(block_at(set, pos), pos)), arg);
}

static const char *
check_block(const struct span_set *set, uint32_t start, uint32_t head, uint32_t len)
{
	struct span_set_block *block = block_at(set, start);
	uint32_t popped = start == block_start(head) ? head - start : 0;

	for (uint32_t pos = start; pos != start + SPAN_SET_BLOCK_SLOTS; pos++) {
		bool filled = aptr_load_relaxed(block_slot(block, pos)) != NULL;
		if (filled != (pos - head < len))
			return "SPANSET-2";
	}
	return a32_load_relaxed(&block->popped) == popped ? NULL : "SPANSET-3";
}

const char *
span_set_check(const struct span_set *set)
{
	uint64_t index = a64_load_acquire(&set->index);
	uint32_t end = a32_load_acquire(&set->end);
	const struct span_set_spine *spine = aptr_load_acquire(&set->spine);
	uint32_t head = index_head(index);
	uint32_t len = index_tail(index) - head;
	uint32_t room = spine == NULL ? 0 : spine->cap_blocks * SPAN_SET_BLOCK_SLOTS;

	if (end % SPAN_SET_BLOCK_SLOTS != 0 || end - block_start(head) > room || len > end - head)
		return "SPANSET-1";
	for (uint32_t start = block_start(head); start != end; start += SPAN_SET_BLOCK_SLOTS) {
		const char *tag = check_block(set, start, head, len);
		if (tag != NULL)
			return tag;
	}
	return NULL;
}

const char *
span_set_check_pool(void)
{
	struct span_set_block *block = pool_top(a64_load_acquire(&block_pool));

	for (; block != NULL; block = aptr_load_relaxed(&block->next)) {
		if (a32_load_relaxed(&block->popped) != 0)
			return "SPANSET-4";
		for (uint32_t i = 0; i < SPAN_SET_BLOCK_SLOTS; i++)
			if (aptr_load_relaxed(&block->slots[i]) != NULL)
				return "SPANSET-4";
	}
	return NULL;
}

/* ---- fork and reset ---- */

/* The spans move down over the holes. Blocks that become free at the tail stay
 * installed; one that a dead thread was about to free is lost. */
void
span_set_after_fork(struct span_set *set)
{
	uint64_t index = a64_load_acquire(&set->index);
	uint32_t head = index_head(index);
	uint32_t to = head;

	for (uint32_t pos = head; pos != index_tail(index); pos++) {
		atomic_ptr *from = block_slot(block_at(set, pos), pos);
		void *s = aptr_load_relaxed(from);
		if (s == NULL)
			continue;
		aptr_store_relaxed(from, NULL);
		aptr_store_relaxed(block_slot(block_at(set, to), to), s);
		to++;
	}
	a64_store_release(&set->index, index_make(head, to));
	if (head % SPAN_SET_BLOCK_SLOTS != 0) {
		struct span_set_block *block = block_at(set, head);
		/* entries that were taken and not yet emptied */
		for (uint32_t pos = block_start(head); pos != head; pos++)
			aptr_store_relaxed(block_slot(block, pos), NULL);
		a32_store_relaxed(&block->popped, head % SPAN_SET_BLOCK_SLOTS);
	}
}

void
span_set_lock_after_fork(void)
{
	mutex_reset(&grow_lock);
}

void
span_set_pool_reset(void)
{
	a64_store_relaxed(&block_pool, 0);
}

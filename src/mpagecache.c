/* mpagecache.c - the per-thread page cache; see the header. */
#include "mpagecache.h"

#include "die.h"
#include "mpagealloc.h"
#include "sys.h"

void
page_alloc_to_cache(struct page_alloc *p, struct page_cache *pc)
{
	if (pc->pages != 0)
		die_corruption("PAGE-13", (void *)pc->base);
	pc->scav = 0;
	pc->pages = page_alloc_take64(p, &pc->base, &pc->scav);
}

/* Makes the scavenged pages of `want` Ready, run by run. What succeeded before
 * a refusal is no longer scavenged, and still in the cache. */
static bool
commit(struct page_cache *pc, uint64_t want, size_t *zeroed_pages)
{
	for (uint64_t z = pc->scav & want; z != 0; z = pc->scav & want) {
		unsigned first = ctz64(z), n = word_low_ones(z >> first);
		void *run = (void *)(pc->base + ((uintptr_t)first << PAGE_SHIFT));
		if (!sys_used(run, (size_t)n << PAGE_SHIFT))
			return false;
		pc->scav &= ~word_mask(first, n);
		*zeroed_pages += n;
	}
	return true;
}

uintptr_t
page_cache_alloc(struct page_cache *pc, size_t npages, size_t *zeroed_pages)
{
	*zeroed_pages = 0;
	if (npages == 0 || (npages << PAGE_SHIFT & (sys_page_bytes() - 1)) != 0)
		die_corruption("PAGE-11", (void *)pc->base);
	if (npages > PAGE_CACHE_PAGES)
		return 0;
	uint64_t at = word_runs(pc->pages, (unsigned)npages);
	if (at == 0)
		return 0;
	unsigned first = ctz64(at);
	uint64_t want = word_mask(first, (unsigned)npages);
	if (!commit(pc, want, zeroed_pages))
		return 0;
	pc->pages &= ~want;
	return pc->base + ((uintptr_t)first << PAGE_SHIFT);
}

void
page_cache_flush(struct page_cache *pc, struct page_alloc *p)
{
	if (pc->pages != 0 || pc->scav != 0)
		page_alloc_give64(p, pc->base, pc->pages, pc->scav);
	*pc = (struct page_cache){ 0 };
}

/* hints.c - what the picture of a report usually means, in one sentence. */
#include <string.h>

#include "facts.h"

static const char *
hint_foreign(enum region_kind kind)
{
	switch (kind) {
	case REGION_THIS_STACK:
	case REGION_MAIN_STACK: return "a local variable or an array on the stack; only what malloc returned may be freed";
	case REGION_CODE: return "this is code, not data: was a function pointer or an overwritten variable passed?";
	case REGION_RODATA: return "a constant, perhaps a string literal; make a copy with strdup if it is to be freed";
	case REGION_DATA:
	case REGION_BSS: return "a global or static variable; only what malloc returned may be freed";
	case REGION_BRK: return "memory of another allocator: libc's malloc, called before spanguard was in place or through RTLD_DEEPBIND, or one that the program brings along";
	case REGION_ANON: return "memory from mmap or from another allocator that the program brings along; its own release function is to be called";
	case REGION_FILE: return "a mapped file is given back by munmap";
	case REGION_NONE: return "an uninitialised or overwritten pointer, or memory that was unmapped before";
	case REGION_NONCANONICAL: return "an uninitialised or overwritten pointer, or one with tag bits in it";
	case REGION_VDSO:
	case REGION_KINDS: break;
	}
	return NULL;
}

static const char *
hint_interior(const struct facts *f)
{
	uintptr_t base = f->has_object ? f->object.base : f->place.heap.slot_base;
	uintptr_t offset = f->info.addr - base;
	if (offset == 8)
		return "8 bytes into the object: new[] of a type with a destructor keeps its count there; use delete[]";
	if (offset == 16)
		return "16 bytes into the object: a header of 16 bytes in front of what the program uses, perhaps by a wrapper around malloc; its own release function is to be called";
	return "the pointer was moved after malloc returned it, or it points to a member; free wants the address that malloc returned";
}

/* Where stacks were kept they say it all. */
static const char *
hint_use_after_free(const struct facts *f)
{
	if (f->has_object && f->object.freed.tid != 0)
		return "the object was freed, by the first of the two stacks above, before this access";
	return "the object was freed before this access; SPANGUARD_OPTIONS=sample=100 keeps the stacks of malloc and free for one object in 100";
}

static const char *
hint_beyond(const struct facts *f)
{
	if (f->has_object && f->object.allocated.tid != 0)
		return f->info.code == DIE_OVERFLOW ?
		    "an access behind the end of the object that the stack above allocated" :
		    "an access before the beginning of the object that the stack above allocated";
	return f->info.code == DIE_OVERFLOW ?
	    "an access behind the end of the object, or of one before it in the same span; SPANGUARD_OPTIONS=sample=100 puts one object in 100 next to a guard of its own" :
	    "an access before the beginning of the object: a negative index, or a pointer that was moved down too far";
}

static const char *
hint_shortage(const struct shortage_facts *m)
{
	if (m->by_limit)
		return "the limit of address space is reached: ulimit -v unlimited; mode=debug and mode=guard keep freed memory and need more of it";
	if (m->by_mappings)
		return "the process has as many mappings as it may have: sysctl -w vm.max_map_count=1048576";
	return "the kernel gives no more: vm.overcommit_memory=2, or a limit that the process has set itself; does the program look at what it gets?";
}

const char *
facts_hint(const struct facts *f)
{
	const struct addr_info *a = &f->place.heap;
	if (f->place_unknown)
		return "the heap is so corrupted that it does not tell what this address is";
	switch (f->info.code) {
	case DIE_DOUBLE_FREE:
		return a->freed_by_other ?
		    "the first free came from a thread that does not own the object: two threads believe it is theirs" :
		    "two places believe they own the object; set the pointer to NULL where it is freed first, or look for a shallow copy";
	case DIE_INTERIOR_FREE: return hint_interior(f);
	case DIE_INVALID_FREE:
	case DIE_FOREIGN_FREE:
		if (a->kind == ADDR_FOREIGN)
			return hint_foreign(f->place.region.kind);
		return a->kind == ADDR_HEAP_RELEASED ?
		    "the object was freed long ago and its span has been given back" : NULL;
	case DIE_STALE_POINTER: return "the object was freed before this call; the pointer is out of date";
	case DIE_SIZE_MISMATCH:
		return "deleted through a pointer to another type, perhaps to a base class without a virtual destructor, or an incomplete type";
	case DIE_ALIGN_MISMATCH: return "allocated and released with different alignments";
	case DIE_API_MISMATCH: 
		return "new[] goes with delete[], new with delete, malloc and its kin with free; mismatch=0 switches this check off";
	case DIE_BAD_REQUEST:
		return f->info.site != NULL && strcmp(f->info.site, "alignment") == 0 ?
		    "an alignment is a power of two, and for posix_memalign a multiple of 8" :
		    "a subtraction that went below zero, a product that overflowed, or a length that was never set";
	case DIE_OUT_OF_MEMORY: return hint_shortage(&f->shortage);
	case DIE_USE_AFTER_FREE: return hint_use_after_free(f);
	case DIE_OVERFLOW:
	case DIE_UNDERFLOW: return hint_beyond(f);
	case DIE_ZERO_SIZE:
		return "malloc(0) returns a pointer that may be freed and nothing else; was a size computed as 0?";
	case DIE_CANARY:
		return "the bytes behind the object were written between its allocation and this call; the offset says how far the write went";
	case DIE_UNDERFLOW_SEEN:
		return "the bytes before the object were written between its allocation and this call: a negative index, or a pointer that was moved down too far";
	case DIE_WRITE_AFTER_FREE:
		return "the object that was here before was written to after its free; the offset names the member";
	case DIE_CORRUPTION:
	case DIE_VERIFY:
		return "metadata lies outside of the heap behind guards: a stray write through a wild pointer, broken memory, or a bug of spanguard";
	default: return NULL;
	}
}

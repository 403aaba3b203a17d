/* export_cxx.c - every replaceable operator new and delete of C++17, from C.
 *
 * The functions bear their mangled names (Itanium ABI, size_t = unsigned long)
 * and each has a body of its own: tools that replace malloc go by address, and
 * an alias would turn every delete[] into a mismatched delete.
 *
 *   new      malloc_fast; without memory new_failed
 *   new_failed
 *     1 std::get_new_handler(); none: std::__throw_bad_alloc()
 *     2 call the handler, try again, from 1
 *   nothrow  malloc_fast; without memory, and with a handler, the C++ runtime's
 *            own nothrow operator, see below
 *   delete   free_fast; with a size only after the class of the size was
 *            compared with that of the span, else free_sized_check
 *
 * A program may replace some forms and not others; by the standard the others
 * then end in its own (new[] in new, sized delete in delete ...), and its
 * pointers may be none of ours. The symbols are weak: a reference to one goes
 * through the GOT and finds the program's, or in a static link loses to it.
 *
 * A C program has no C++ runtime, so we must not need one: the two functions
 * are weak references. These are bound when we are loaded, that is never in a C
 * program which dlopens a C++ plug-in with RTLD_LOCAL (python and its extension
 * modules). Then the runtime is looked up in the symbol tables of the loaded
 * modules: no dlsym, no allocation, only when memory has run out. With no
 * runtime at all operator new dies with DIE_OUT_OF_MEMORY.
 *
 * A new-handler may throw bad_alloc, and the nothrow forms must turn that into
 * NULL; C cannot catch. The runtime's own nothrow operator can: it calls the
 * ordinary operator new inside try and catch. It is taken from the module that
 * also defines get_new_handler, so that it is no other allocator's. Where there
 * is none (a static program), nothrow new does not call the handler, and lets
 * pass what an operator new of the program's own throws.
 *
 * Exceptions pass through these frames: build with -fexceptions. */
#include "die.h"
#include "dynsym.h"
#include "malloc.h"
#include "malloc_fast.h"

#if defined(__clang__)
#define OWN_BODY
#else
#define OWN_BODY __attribute__((no_icf))
#endif

#define OPERATOR(symbol) __asm__(symbol) OWN_BODY __attribute__((weak, visibility("default")))
#define OURS(symbol) __attribute__((alias(symbol), visibility("hidden")))
#define RUNTIME(symbol) __asm__(symbol) __attribute__((weak, visibility("default")))

typedef void new_handler(void);
typedef new_handler *get_new_handler_fn(void);
typedef void throw_bad_alloc_fn(void);
typedef void *nothrow_new_fn(size_t bytes, const void *tag);
typedef void *nothrow_aligned_new_fn(size_t bytes, size_t align, const void *tag);

#define GET_NEW_HANDLER "_ZSt15get_new_handlerv"
#define THROW_BAD_ALLOC "_ZSt17__throw_bad_allocv"
#define NOTHROW_NEW "_ZnwmRKSt9nothrow_t"
#define NOTHROW_NEW_ARRAY "_ZnamRKSt9nothrow_t"
#define NOTHROW_NEW_ALIGNED "_ZnwmSt11align_val_tRKSt9nothrow_t"
#define NOTHROW_NEW_ARRAY_ALIGNED "_ZnamSt11align_val_tRKSt9nothrow_t"

get_new_handler_fn std_get_new_handler RUNTIME(GET_NEW_HANDLER);
throw_bad_alloc_fn std_throw_bad_alloc RUNTIME(THROW_BAD_ALLOC);

void *op_new(size_t bytes) OPERATOR("_Znwm");
void *op_new_array(size_t bytes) OPERATOR("_Znam");
void *op_new_nothrow(size_t bytes, const void *tag) OPERATOR(NOTHROW_NEW);
void *op_new_array_nothrow(size_t bytes, const void *tag) OPERATOR(NOTHROW_NEW_ARRAY);
void *op_new_aligned(size_t bytes, size_t align) OPERATOR("_ZnwmSt11align_val_t");
void *op_new_array_aligned(size_t bytes, size_t align) OPERATOR("_ZnamSt11align_val_t");
void *op_new_aligned_nothrow(size_t bytes, size_t align, const void *tag)
    OPERATOR(NOTHROW_NEW_ALIGNED);
void *op_new_array_aligned_nothrow(size_t bytes, size_t align, const void *tag)
    OPERATOR(NOTHROW_NEW_ARRAY_ALIGNED);

void op_delete(void *p) OPERATOR("_ZdlPv");
void op_delete_array(void *p) OPERATOR("_ZdaPv");
void op_delete_nothrow(void *p, const void *tag) OPERATOR("_ZdlPvRKSt9nothrow_t");
void op_delete_array_nothrow(void *p, const void *tag) OPERATOR("_ZdaPvRKSt9nothrow_t");
void op_delete_sized(void *p, size_t bytes) OPERATOR("_ZdlPvm");
void op_delete_array_sized(void *p, size_t bytes) OPERATOR("_ZdaPvm");
void op_delete_aligned(void *p, size_t align) OPERATOR("_ZdlPvSt11align_val_t");
void op_delete_array_aligned(void *p, size_t align) OPERATOR("_ZdaPvSt11align_val_t");
void op_delete_aligned_nothrow(void *p, size_t align, const void *tag)
    OPERATOR("_ZdlPvSt11align_val_tRKSt9nothrow_t");
void op_delete_array_aligned_nothrow(void *p, size_t align, const void *tag)
    OPERATOR("_ZdaPvSt11align_val_tRKSt9nothrow_t");
void op_delete_sized_aligned(void *p, size_t bytes, size_t align)
    OPERATOR("_ZdlPvmSt11align_val_t");
void op_delete_array_sized_aligned(void *p, size_t bytes, size_t align)
    OPERATOR("_ZdaPvmSt11align_val_t");

/* ---- which of the forms that others end in are ours ---- */

void *own_new(size_t bytes) OURS("_Znwm");
void *own_new_array(size_t bytes) OURS("_Znam");
void *own_new_aligned(size_t bytes, size_t align) OURS("_ZnwmSt11align_val_t");
void *own_new_array_aligned(size_t bytes, size_t align) OURS("_ZnamSt11align_val_t");
void own_delete(void *p) OURS("_ZdlPv");
void own_delete_array(void *p) OURS("_ZdaPv");
void own_delete_aligned(void *p, size_t align) OURS("_ZdlPvSt11align_val_t");
void own_delete_array_aligned(void *p, size_t align) OURS("_ZdaPvSt11align_val_t");

INLINE bool
new_is_ours(void)
{
	return likely(op_new == own_new);
}

INLINE bool
new_array_is_ours(void)
{
	return new_is_ours() && likely(op_new_array == own_new_array);
}

INLINE bool
new_aligned_is_ours(void)
{
	return likely(op_new_aligned == own_new_aligned);
}

INLINE bool
new_array_aligned_is_ours(void)
{
	return new_aligned_is_ours() && likely(op_new_array_aligned == own_new_array_aligned);
}

INLINE bool
delete_is_ours(void)
{
	return likely(op_delete == own_delete);
}

INLINE bool
delete_array_is_ours(void)
{
	return delete_is_ours() && likely(op_delete_array == own_delete_array);
}

INLINE bool
delete_aligned_is_ours(void)
{
	return likely(op_delete_aligned == own_delete_aligned);
}

INLINE bool
delete_array_aligned_is_ours(void)
{
	return delete_aligned_is_ours() &&
	    likely(op_delete_array_aligned == own_delete_array_aligned);
}

/* ---- without memory ---- */

static new_handler *
current_handler(void)
{
	get_new_handler_fn *get = std_get_new_handler;

	if (get == NULL)
		get = (get_new_handler_fn *)dynsym_function(GET_NEW_HANDLER, NULL, NULL);
	return get == NULL ? NULL : get();
}

static _Noreturn void
throw_bad_alloc(size_t bytes, enum malloc_api api)
{
	throw_bad_alloc_fn *thrower = std_throw_bad_alloc;

	if (thrower == NULL)
		thrower = (throw_bad_alloc_fn *)dynsym_function(THROW_BAD_ALLOC, NULL, NULL);
	if (thrower != NULL)
		thrower();
	die(&(struct die_info){
		.code = DIE_OUT_OF_MEMORY,
		.api = malloc_api_name(api),
		.site = "no-cxx-runtime",
		.given = bytes,
	});
}

/* align 0: the plain form. */
static NOINLINE void *
new_failed(size_t bytes, size_t align, enum malloc_api api)
{
	for (;;) {
		new_handler *handler = current_handler();
		if (handler == NULL)
			throw_bad_alloc(bytes, api);
		handler();
		void *p = align == 0 ? mallocgc(bytes, api) : mallocgc_aligned(align, bytes, api);
		if (p != NULL)
			return p;
	}
}

/* The runtime's nothrow operator of that name, or NULL. */
static void *
runtime_nothrow(const char *symbol, const void *ours)
{
	return dynsym_function(symbol, GET_NEW_HANDLER, ours);
}

static NOINLINE void *
nothrow_failed(size_t bytes, const void *tag, const char *symbol, nothrow_new_fn *ours)
{
	nothrow_new_fn *theirs;

	if (current_handler() == NULL)
		return NULL;
	theirs = (nothrow_new_fn *)runtime_nothrow(symbol, (const void *)ours);
	return theirs == NULL ? NULL : theirs(bytes, tag);
}

static NOINLINE void *
nothrow_aligned_failed(size_t bytes, size_t align, const void *tag, const char *symbol,
    nothrow_aligned_new_fn *ours)
{
	nothrow_aligned_new_fn *theirs;

	if (current_handler() == NULL)
		return NULL;
	theirs = (nothrow_aligned_new_fn *)runtime_nothrow(symbol, (const void *)ours);
	return theirs == NULL ? NULL : theirs(bytes, align, tag);
}

/* ---- nothrow new in a program that has an operator new of its own ---- */

/* Found once: the runtime is one that the program itself is linked with. */
static void *
remember(atomic_ptr *found, const char *symbol, const void *ours)
{
	void *theirs = aptr_load_relaxed(found);

	if (theirs == NULL) {
		theirs = runtime_nothrow(symbol, ours);
		aptr_store_relaxed(found, theirs);
	}
	return theirs;
}

static NOINLINE void *
nothrow_by_program(size_t bytes, const void *tag)
{
	static atomic_ptr found;
	nothrow_new_fn *theirs = (nothrow_new_fn *)remember(&found, NOTHROW_NEW,
	    (const void *)op_new_nothrow);

	return theirs != NULL ? theirs(bytes, tag) : op_new(bytes);
}

static NOINLINE void *
nothrow_array_by_program(size_t bytes, const void *tag)
{
	static atomic_ptr found;
	nothrow_new_fn *theirs = (nothrow_new_fn *)remember(&found, NOTHROW_NEW_ARRAY,
	    (const void *)op_new_array_nothrow);

	return theirs != NULL ? theirs(bytes, tag) : op_new_array(bytes);
}

static NOINLINE void *
nothrow_aligned_by_program(size_t bytes, size_t align, const void *tag)
{
	static atomic_ptr found;
	nothrow_aligned_new_fn *theirs = (nothrow_aligned_new_fn *)remember(&found,
	    NOTHROW_NEW_ALIGNED, (const void *)op_new_aligned_nothrow);

	return theirs != NULL ? theirs(bytes, align, tag) : op_new_aligned(bytes, align);
}

static NOINLINE void *
nothrow_array_aligned_by_program(size_t bytes, size_t align, const void *tag)
{
	static atomic_ptr found;
	nothrow_aligned_new_fn *theirs = (nothrow_aligned_new_fn *)remember(&found,
	    NOTHROW_NEW_ARRAY_ALIGNED, (const void *)op_new_array_aligned_nothrow);

	return theirs != NULL ? theirs(bytes, align, tag) : op_new_array_aligned(bytes, align);
}

/* ---- new ---- */

void *
op_new(size_t bytes)
{
	void *p = malloc_fast(bytes, API_NEW);

	return likely(p != NULL) ? p : new_failed(bytes, 0, API_NEW);
}

void *
op_new_array(size_t bytes)
{
	void *p;

	if (!new_is_ours())
		return op_new(bytes);
	p = malloc_fast(bytes, API_NEW_ARRAY);
	return likely(p != NULL) ? p : new_failed(bytes, 0, API_NEW_ARRAY);
}

void *
op_new_nothrow(size_t bytes, const void *tag)
{
	void *p;

	if (!new_is_ours())
		return nothrow_by_program(bytes, tag);
	p = malloc_fast(bytes, API_NEW);
	return likely(p != NULL) ? p :
	    nothrow_failed(bytes, tag, NOTHROW_NEW, op_new_nothrow);
}

void *
op_new_array_nothrow(size_t bytes, const void *tag)
{
	void *p;

	if (!new_array_is_ours())
		return nothrow_array_by_program(bytes, tag);
	p = malloc_fast(bytes, API_NEW_ARRAY);
	return likely(p != NULL) ? p :
	    nothrow_failed(bytes, tag, NOTHROW_NEW_ARRAY, op_new_array_nothrow);
}

/* No handler can make room for an alignment that is not one. */
static void *
new_aligned(size_t bytes, size_t align, enum malloc_api api)
{
	void *p;

	if (unlikely(!is_pow2(align)))
		throw_bad_alloc(bytes, api);
	p = mallocgc_aligned(align, bytes, api);
	return likely(p != NULL) ? p : new_failed(bytes, align, api);
}

void *
op_new_aligned(size_t bytes, size_t align)
{
	return new_aligned(bytes, align, API_NEW_ALIGNED);
}

void *
op_new_array_aligned(size_t bytes, size_t align)
{
	if (!new_aligned_is_ours())
		return op_new_aligned(bytes, align);
	return new_aligned(bytes, align, API_NEW_ARRAY_ALIGNED);
}

void *
op_new_aligned_nothrow(size_t bytes, size_t align, const void *tag)
{
	void *p;

	if (!new_aligned_is_ours())
		return nothrow_aligned_by_program(bytes, align, tag);
	if (unlikely(!is_pow2(align)))
		return NULL;
	p = mallocgc_aligned(align, bytes, API_NEW_ALIGNED);
	return likely(p != NULL) ? p :
	    nothrow_aligned_failed(bytes, align, tag, NOTHROW_NEW_ALIGNED,
	    op_new_aligned_nothrow);
}

void *
op_new_array_aligned_nothrow(size_t bytes, size_t align, const void *tag)
{
	void *p;

	if (!new_array_aligned_is_ours())
		return nothrow_array_aligned_by_program(bytes, align, tag);
	if (unlikely(!is_pow2(align)))
		return NULL;
	p = mallocgc_aligned(align, bytes, API_NEW_ARRAY_ALIGNED);
	return likely(p != NULL) ? p :
	    nothrow_aligned_failed(bytes, align, tag, NOTHROW_NEW_ARRAY_ALIGNED,
	    op_new_array_aligned_nothrow);
}

/* ---- delete ---- */

void
op_delete(void *p)
{
	free_fast(p, API_DELETE);
}

void
op_delete_array(void *p)
{
	if (delete_is_ours())
		free_fast(p, API_DELETE_ARRAY);
	else
		op_delete(p);
}

void
op_delete_nothrow(void *p, const void *tag)
{
	(void)tag;
	if (delete_is_ours())
		free_fast(p, API_DELETE);
	else
		op_delete(p);
}

void
op_delete_array_nothrow(void *p, const void *tag)
{
	(void)tag;
	if (delete_array_is_ours())
		free_fast(p, API_DELETE_ARRAY);
	else
		op_delete_array(p);
}

/* The object lies in a span of the very class that its size asks for: the size
 * is right as far as a class can tell. Anything else is looked at in full. */
INLINE void
delete_sized(void *p, size_t bytes, enum malloc_api api)
{
	struct mspan *s = span_of((uintptr_t)p);

	if (likely(s != NULL) && likely(bytes - 1 < SMALL_MAX_BYTES) &&
	    likely(size_to_class[(bytes + 15) >> 4] == s->sized_class))
		free_fast(p, api);
	else
		free_sized_check(p, bytes, 0, api);
}

void
op_delete_sized(void *p, size_t bytes)
{
	if (delete_is_ours())
		delete_sized(p, bytes, API_DELETE_SIZED);
	else
		op_delete(p);
}

void
op_delete_array_sized(void *p, size_t bytes)
{
	if (delete_array_is_ours())
		delete_sized(p, bytes, API_DELETE_ARRAY_SIZED);
	else
		op_delete_array(p);
}

void
op_delete_aligned(void *p, size_t align)
{
	free_aligned_check(p, align, API_DELETE_ALIGNED);
	NO_TAIL_CALL();
}

void
op_delete_array_aligned(void *p, size_t align)
{
	if (delete_aligned_is_ours())
		free_aligned_check(p, align, API_DELETE_ARRAY_ALIGNED);
	else
		op_delete_aligned(p, align);
	NO_TAIL_CALL();
}

void
op_delete_aligned_nothrow(void *p, size_t align, const void *tag)
{
	(void)tag;
	if (delete_aligned_is_ours())
		free_aligned_check(p, align, API_DELETE_ALIGNED);
	else
		op_delete_aligned(p, align);
	NO_TAIL_CALL();
}

void
op_delete_array_aligned_nothrow(void *p, size_t align, const void *tag)
{
	(void)tag;
	if (delete_array_aligned_is_ours())
		free_aligned_check(p, align, API_DELETE_ARRAY_ALIGNED);
	else
		op_delete_array_aligned(p, align);
	NO_TAIL_CALL();
}

void
op_delete_sized_aligned(void *p, size_t bytes, size_t align)
{
	if (delete_aligned_is_ours())
		free_sized_check(p, bytes, align, API_DELETE_SIZED_ALIGNED);
	else
		op_delete_aligned(p, align);
	NO_TAIL_CALL();
}

void
op_delete_array_sized_aligned(void *p, size_t bytes, size_t align)
{
	if (delete_array_aligned_is_ours())
		free_sized_check(p, bytes, align, API_DELETE_ARRAY_SIZED_ALIGNED);
	else
		op_delete_array_aligned(p, align);
	NO_TAIL_CALL();
}

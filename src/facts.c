/* facts.c - see facts.h. Nothing of a heap that may be corrupted is believed: what
 * a room or the heap says is only printed, never followed, but for pcs, whose
 * number is bounded here and whose modules are read through peek.h. */
#include "facts.h"

#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "unwind.h"

enum {
	TEXT_MIN_BYTES = 4,            /* printable bytes in a row that are taken for text */
	SMALL_INTEGER = 65536,
	MODULES_KEPT = 32,
};

/* ---- frames ------------------------------------------------------------- */

/* Modules met in this report: one look into maps for each is enough. */
static struct module modules[MODULES_KEPT];
static size_t modules_n;

static const struct module *
module_of(uintptr_t pc)
{
	for (size_t i = 0; i < modules_n; i++)
		if (pc - modules[i].start < modules[i].end - modules[i].start)
			return &modules[i];
	struct module *m = &modules[modules_n < MODULES_KEPT ? modules_n : MODULES_KEPT - 1];
	if (!procmap_module(pc, m)) {
		m->start = m->end = 0;
		return NULL;
	}
	if (modules_n < MODULES_KEPT)
		modules_n++;
	return m;
}

void
facts_begin(void)
{
	modules_n = 0;
}

const struct frame_facts *
facts_frame(uintptr_t pc)
{
	static struct frame_facts frame;
	static char symbol[FACTS_SYMBOL_BYTES];
	uintptr_t offset;
	frame = (struct frame_facts){ .pc = pc };
	const struct module *m = module_of(pc);
	frame.module = m;
	if (m != NULL && procmap_symbol(m, pc, symbol, sizeof(symbol), &offset))
		frame.symbol = symbol;
	return &frame;
}

bool
facts_look_up(uintptr_t pc, const char **symbol, const char **module)
{
	const struct frame_facts *fr = facts_frame(pc);
	if (fr->module == NULL)
		return false;
	*symbol = fr->symbol;
	*module = fr->module->path;
	return true;
}

size_t
facts_modules(const struct module **list)
{
	*list = modules;
	return modules_n;
}

bool
facts_frame_is_libs(const struct frame_facts *f)
{
	static const char *const libs[] = { "libc.", "libc-", "ld-", "libspanguard.", "libstdc++." };
	if (f->module == NULL)
		return false;
	const char *name = strrchr(f->module->path, '/');
	name = name != NULL ? name + 1 : f->module->path;
	for (size_t i = 0; i < ARRAY_LEN(libs); i++)
		if (strncmp(name, libs[i], strlen(libs[i])) == 0)
			return true;
	return false;
}

/* The stack of a fault begins where the signal frame says it was; without that
 * frame, because the walk did not get so far, at least there. */
static void
take_stack_at(struct facts *f, uintptr_t pc)
{
	size_t n = unwind_here(f->pcs, FACTS_FRAMES);
	size_t first = 0;
	while (first < n && f->pcs[first] != pc)
		first++;
	f->frames = n - first;
	memmove(f->pcs, f->pcs + first, f->frames * sizeof(f->pcs[0]));
	if (f->frames == 0)
		f->pcs[f->frames++] = pc;
}

/* Leaves the entry point of ours as frame 0 where we are a library; where we
 * are linked into the program, only the reporter's own frames can be told. */
static void
take_stack_of_call(struct facts *f, uintptr_t caller)
{
	static struct module module;
	size_t n = unwind_here(f->pcs, FACTS_FRAMES);
	size_t first = 0;
	while (first < n && f->pcs[first] != caller - 1)
		first++;
	if (first != n) {
		n -= first;
		memmove(f->pcs, f->pcs + first, n * sizeof(f->pcs[0]));
	}
	if (n == 0)
		f->pcs[n++] = caller - 1;     /* no unwind tables: better than nothing */
	uintptr_t program = (uintptr_t)getauxval(AT_PHDR);
	if (procmap_module((uintptr_t)&take_stack_of_call, &module) &&
	    program - module.start >= module.end - module.start)
		n = unwind_trim(f->pcs, n, module.start, module.end);
	f->frames = n;
}

static void
take_stack(struct facts *f, uintptr_t caller)
{
	if (f->info.access != NULL)
		take_stack_at(f, f->info.access->pc);
	else
		take_stack_of_call(f, caller);
}

/* The caller of our function, or where the fault was, but not in libc: a fault
 * inside memcpy or strlen is the caller's. */
static void
choose_frame_here(struct facts *f)
{
	size_t i = 0;
	f->summary_stack = STACK_ERROR;
	f->summary = f->frames > 1 ? 1 : 0;
	if (f->info.access == NULL)
		return;
	while (i < f->frames && facts_frame_is_libs(facts_frame(f->pcs[i])))
		i++;
	f->summary = i < f->frames ? i : 0;
}

static void
choose_frame_of(struct facts *f, enum facts_stack stack, const struct room_trace *t)
{
	if (!f->has_object || t->tid == 0 || t->frames == 0)
		return;
	f->summary_stack = stack;
	f->summary = t->frames > 1 ? 1 : 0;
}

/* The frame to group reports by. What a check of freed memory or of the whole heap
 * came upon is not the fault of whoever made it run: that is named by who freed, or
 * made, the object. */
static void
choose_summary(struct facts *f)
{
	const char *api = f->info.api;
	bool late = f->info.code == DIE_CANARY || f->info.code == DIE_UNDERFLOW_SEEN;
	bool by_free = strstr(api, "free") != NULL || strstr(api, "delete") != NULL ||
	    strstr(api, "realloc") != NULL;
	choose_frame_here(f);
	if (f->info.code == DIE_WRITE_AFTER_FREE)
		choose_frame_of(f, STACK_FREE, &f->object.freed);
	else if (late && !by_free)
		choose_frame_of(f, STACK_ALLOC, &f->object.allocated);
}

size_t
facts_summary(const struct facts *f, const uintptr_t **pcs)
{
	const struct room_trace *t = f->summary_stack == STACK_ALLOC ? &f->object.allocated :
	    &f->object.freed;
	bool here = f->summary_stack == STACK_ERROR;
	size_t n = here ? f->frames : t->frames;
	*pcs = here ? f->pcs : t->pcs;
	if (n != 0)              /* where none were kept there may be no array */
		*pcs += f->summary;
	return n - f->summary;
}

/* ---- hashes: FNV-1a ------------------------------------------------------ */

static uint64_t
hash_bytes(uint64_t h, const void *p, size_t n)
{
	const unsigned char *b = p;
	for (size_t i = 0; i < n; i++)
		h = (h ^ b[i]) * 0x100000001b3u;
	return h;
}

/* Kind, and module and offset of the innermost frames from the summary on: the
 * same in every run of the same binaries. */
static uint64_t
fingerprint(const struct facts *f)
{
	const uintptr_t *pcs;
	const char *id = die_id(f->info.code);
	uint64_t h = hash_bytes(0xcbf29ce484222325u, id, strlen(id));
	size_t n = facts_summary(f, &pcs);
	for (size_t i = 0; i < n && i < FACTS_TOKEN_FRAMES; i++) {
		const struct frame_facts *fr = facts_frame(pcs[i]);
		if (fr->module == NULL)
			continue;
		const char *name = strrchr(fr->module->path, '/');
		uintptr_t offset = pcs[i] - fr->module->bias;
		h = hash_bytes(h, name != NULL ? name : "", name != NULL ? strlen(name) : 0);
		h = hash_bytes(h, &offset, sizeof(offset));
	}
	return h;
}

/* ---- what an address is -------------------------------------------------- */

static void
take_place(struct place_facts *pl, uintptr_t addr, uintptr_t base)
{
	static struct module module;
	*pl = (struct place_facts){ .addr = addr, .heap = { .kind = ADDR_FOREIGN } };
	if (addr == 0)
		return;
	heap_describe(base, &pl->heap);
	if (pl->heap.kind != ADDR_FOREIGN)
		return;
	procmap_classify(addr, (uintptr_t)__builtin_frame_address(0), &pl->region);
	if (pl->region.kind >= REGION_CODE && pl->region.kind <= REGION_BSS &&
	    procmap_module(addr, &module)) {
		pl->in_module = true;
		pl->module_offset = addr - module.bias;
	}
}

static void
take_object(struct facts *f)
{
	uintptr_t addr = f->info.addr;
	struct room_object *o = &f->object;
	f->has_object = addr != 0 && hook_object(addr, o);
	if (f->has_object && o->allocated.frames > ROOM_FRAMES)
		o->allocated.frames = ROOM_FRAMES;
	if (f->has_object && o->freed.frames > ROOM_FRAMES)
		o->freed.frames = ROOM_FRAMES;
	take_place(&f->place, addr, f->has_object ? o->base : addr);
}

/* What only the place tells: whose memory it was, and on which side. */
static void
refine_code(struct facts *f)
{
	enum region_kind k = f->place.region.kind;
	bool foreign = !f->has_object && f->place.heap.kind == ADDR_FOREIGN;
	if (f->info.code == DIE_INVALID_FREE && foreign &&
	    (k == REGION_BRK || k == REGION_ANON || k == REGION_FILE))
		f->info.code = DIE_FOREIGN_FREE;
	if (f->info.code == DIE_CANARY && f->info.diff != NULL && f->has_object &&
	    f->info.diff->base < f->object.base)
		f->info.code = DIE_UNDERFLOW_SEEN;
}

static uintptr_t
object_base(const struct facts *f)
{
	return f->has_object ? f->object.base : f->place.heap.slot_base;
}

/* ---- changed bytes ------------------------------------------------------- */

static size_t
diff_bytes(const struct die_diff *d)
{
	return d->n < DIE_DIFF_BYTES ? d->n : DIE_DIFF_BYTES;
}

/* The longest run of printable bytes that begins and ends with a changed one. */
static void
take_text(struct looks_facts *l, const struct die_diff *d)
{
	size_t best = 0, best_at = 0, run = 0;
	for (size_t i = 0; i < diff_bytes(d); i++) {
		bool changed = d->found[i] != d->expected[i];
		bool printable = d->found[i] >= 0x20 && d->found[i] < 0x7f;
		run = printable && (changed || run != 0) ? run + 1 : 0;
		if (changed && run > best) {
			best = run;
			best_at = i + 1 - run;
		}
	}
	if (best >= TEXT_MIN_BYTES)
		memcpy(l->text, d->found + best_at, best);
}

static void
take_one_bit(struct looks_facts *l, const struct die_diff *d)
{
	size_t at = 0, bits = 0;
	for (size_t i = 0; i < diff_bytes(d); i++) {
		unsigned differ = d->found[i] ^ d->expected[i];
		bits += popcount64(differ);
		if (differ != 0)
			at = i;
	}
	l->one_bit = bits == 1 && d->changed <= 1;
	if (l->one_bit)
		l->bit = ctz64((uint64_t)(d->found[at] ^ d->expected[at]));
}

/* What the word would point to; false if to nothing. */
static bool
is_pointer(struct looks_facts *l)
{
	if (l->word < 4096 || l->word >> ADDR_BITS != 0)
		return false;
	take_place(&l->target, (uintptr_t)l->word, (uintptr_t)l->word);
	return l->target.heap.kind != ADDR_FOREIGN || (l->target.region.kind != REGION_NONE &&
	    l->target.region.kind != REGION_NONCANONICAL);
}

/* The first word, as the machine sees words, with a changed byte in it. */
static void
take_word(struct facts *f, const struct die_diff *d)
{
	struct looks_facts *l = &f->looks;
	size_t i = (size_t)(-d->base & 7);
	while (i + sizeof(l->word) <= diff_bytes(d) &&
	    memcmp(d->found + i, d->expected + i, sizeof(l->word)) == 0)
		i += sizeof(l->word);
	if (i + sizeof(l->word) > diff_bytes(d))
		return;
	memcpy(&l->word, d->found + i, sizeof(l->word));
	l->word_offset = (intptr_t)(d->base + i - f->diff_origin);
	int64_t v = (int64_t)l->word;
	if (is_pointer(l))
		l->word_kind = WORD_POINTER;
	else
		l->word_kind = v > -SMALL_INTEGER && v < SMALL_INTEGER ? WORD_INTEGER : WORD_OTHER;
}

static void
take_diff(struct facts *f)
{
	const struct die_diff *d = f->info.diff;
	memset(&f->looks, 0, sizeof(f->looks));
	f->diff_origin = object_base(f) != 0 ? object_base(f) : f->info.addr;
	if (d == NULL)
		return;
	take_text(&f->looks, d);
	take_one_bit(&f->looks, d);
	take_word(f, d);
}

/* ---- the sentence of the first line ---------------------------------------- */

static bool
releases(const char *api)
{
	return strstr(api, "realloc") == NULL && strstr(api, "usable") == NULL;
}

static void
put_tagged(struct print *p, const char *text, const struct die_info *info)
{
	print_str(p, text);
	print_str(p, " [");
	print_str(p, info->site != NULL ? info->site : "?");
	print_str(p, "] at ");
	print_hex(p, info->addr);
}

static void
put_not_malloced(struct print *p, const struct facts *f)
{
	const struct die_info *info = &f->info;
	print_str(p, "attempting ");
	print_str(p, releases(info->api) ? "free" : info->api);
	print_str(p, " on address which was not malloc()-ed: ");
	print_hex(p, info->addr);
	if (info->code == DIE_INTERIOR_FREE && object_base(f) != 0) {
		print_str(p, ", ");
		print_bytes(p, info->addr - object_base(f));
		print_str(p, " inside of an object,");
	}
}

/* As AddressSanitizer says it. */
static void
put_access(struct print *p, const struct die_info *info)
{
	const struct die_access *a = info->access;
	print_str(p, info->code == DIE_ZERO_SIZE ? "access to a zero-size object" :
	    die_word(info->code, info->api));
	print_str(p, " on address ");
	print_hex(p, info->addr);
	print_str(p, " at pc ");
	print_hex(p, a->pc);
	print_str(p, " bp ");
	print_hex(p, a->bp);
	print_str(p, " sp ");
	print_hex(p, a->sp);
}

/* Seen later: by which call. */
static void
put_late(struct print *p, const struct die_info *info)
{
	bool reuse = info->code == DIE_WRITE_AFTER_FREE && (strstr(info->api, "alloc") != NULL ||
	    strncmp(info->api, "operator new", 12) == 0);
	print_str(p, die_word(info->code, info->api));
	print_str(p, reuse ? " detected on reuse on address " : " detected at ");
	if (!reuse) {
		bool frees = releases(info->api) && (strstr(info->api, "free") != NULL ||
		    strstr(info->api, "delete") != NULL);
		print_str(p, frees ? "free" : info->api[0] != 0 ? info->api : "verify");
		print_str(p, " on address ");
	}
	print_hex(p, info->addr);
}

/* "operator new []", as AddressSanitizer spells it. */
static void
put_function(struct print *p, const char *api)
{
	for (; api != NULL && *api != 0; api++) {
		if (*api == '[')
			print_char(p, ' ');
		print_char(p, *api);
	}
}

static void
put_mismatch(struct print *p, const struct die_info *info)
{
	print_str(p, "alloc-dealloc-mismatch (");
	put_function(p, info->made_by);
	print_str(p, " vs ");
	put_function(p, info->api);
	print_str(p, ") on ");
	print_hex(p, info->addr);
}

static void
put_request(struct print *p, const struct die_info *info)
{
	print_str(p, "bad request: ");
	print_str(p, info->api);
	if (info->site != NULL && strcmp(info->site, "alignment") == 0) {
		print_str(p, " with alignment ");
		print_dec(p, info->given);
		return;
	}
	print_str(p, " of ");
	if (info->expected != 0) {
		print_dec(p, info->expected);
		print_str(p, " times ");
	}
	print_bytes(p, info->given);
	if (info->expected == 0) {
		print_str(p, " (");
		print_sdec(p, (int64_t)info->given);
		print_str(p, " as a signed number)");
	}
}

static void
put_title(struct print *p, const struct facts *f)
{
	const struct die_info *info = &f->info;
	if (info->access != NULL) {
		put_access(p, info);
		return;
	}
	switch (info->code) {
	case DIE_DOUBLE_FREE:
		print_str(p, "attempting double-free on ");
		print_hex(p, info->addr);
		break;
	case DIE_INVALID_FREE:
	case DIE_FOREIGN_FREE:
	case DIE_INTERIOR_FREE: put_not_malloced(p, f); break;
	case DIE_STALE_POINTER:
		print_str(p, "attempting ");
		print_str(p, info->api);
		print_str(p, " on freed pointer ");
		print_hex(p, info->addr);
		break;
	case DIE_API_MISMATCH: put_mismatch(p, info); break;
	case DIE_CANARY:
	case DIE_UNDERFLOW_SEEN:
	case DIE_WRITE_AFTER_FREE: put_late(p, info); break;
	case DIE_CORRUPTION: put_tagged(p, "allocator metadata corrupted", info); break;
	case DIE_VERIFY: put_tagged(p, "heap verification failed", info); break;
	case DIE_BAD_REQUEST: put_request(p, info); break;
	case DIE_OUT_OF_MEMORY:
		print_str(p, "out of memory: ");
		print_str(p, info->api);
		print_str(p, " of ");
		print_bytes(p, info->given);
		break;
	default:
		print_str(p, die_word(info->code, info->api));
		print_str(p, " on ");
		print_hex(p, info->addr);
		break;
	}
}

/* ---- the whole ----------------------------------------------------------- */

static void
take_process(struct facts *f)
{
	struct timespec now = { 0, 0 };
	f->pid = (uint32_t)syscall(SYS_getpid);
	f->tid = (uint32_t)syscall(SYS_gettid);
	f->thread[0] = 0;
	syscall(SYS_prctl, PR_GET_NAME, f->thread, 0, 0, 0);
	long n = syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", f->exe, sizeof(f->exe) - 1);
	f->exe[n > 0 ? n : 0] = 0;
	syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
	f->time_s = (uint64_t)now.tv_sec;
}

static void
take_words(struct facts *f)
{
	struct print title;
	choose_summary(f);
	f->fingerprint = fingerprint(f);
	print_init(&title, f->title, sizeof(f->title));
	put_title(&title, f);
	f->hint = facts_hint(f);
}

void
facts_take(struct facts *f, const struct die_info *info, uintptr_t caller, bool goes_on)
{
	memset(f, 0, sizeof(*f));
	f->info = *info;
	f->goes_on = goes_on;
	f->place.addr = info->addr;
	f->place.heap.kind = ADDR_FOREIGN;
	f->place_unknown = true;
	f->diff_origin = info->addr;
	take_process(f);
	take_stack(f, caller);
	take_words(f);
}

void
facts_take_heap(struct facts *f)
{
	take_object(f);
	f->place_unknown = false;
	refine_code(f);
	take_diff(f);
	facts_take_neighbours(f);
	facts_take_shortage(f);
	take_words(f);
}

void
facts_take_leak(struct facts *f, const struct leak_facts *leak)
{
	struct print p;
	memset(f, 0, sizeof(*f));
	f->info = (struct die_info){ .code = DIE_LEAK, .api = "", .addr = leak->sample };
	f->goes_on = true;
	f->is_leak = true;
	f->leak = *leak;
	take_process(f);
	take_object(f);
	f->has_object = true;
	f->object.allocated = leak->allocated;
	f->object.freed = (struct room_trace){ .tid = 0 };
	f->summary_stack = STACK_ALLOC;
	f->summary = leak->allocated.frames > 1 ? 1 : 0;
	f->fingerprint = fingerprint(f);
	print_init(&p, f->title, sizeof(f->title));
	print_str(&p, leak->indirect ? "Indirect leak of " : "Direct leak of ");
	print_dec(&p, leak->bytes);
	print_str(&p, " byte(s) in ");
	print_dec(&p, leak->objects);
	print_str(&p, " object(s)");
}

void
facts_take_address(struct facts *f, uintptr_t addr)
{
	static char name[FACTS_SYMBOL_BYTES];
	struct place_facts *pl = &f->place;
	f->info = (struct die_info){ .api = "", .addr = addr };
	f->pid = (uint32_t)syscall(SYS_getpid);
	take_object(f);
	bool data = pl->in_module &&
	    (pl->region.kind == REGION_DATA || pl->region.kind == REGION_BSS);
	const struct module *m = data ? module_of(addr) : NULL;
	if (m != NULL && procmap_symbol(m, addr, name, sizeof(name), &pl->variable_offset))
		pl->variable = name;
}

void
facts_forget(struct facts *f)
{
	memset(f, 0, sizeof(*f));
}

bool
facts_object_is_known(const struct room_object *o)
{
	return o->what != NULL || o->api != NULL;
}

/* ---- words for both ------------------------------------------------------- */

const char *
facts_state_name(enum slot_state s)
{
	switch (s) {
	case SLOT_FREE: return "free";
	case SLOT_LIVE: return "live";
	case SLOT_FREED: return "freed";
	case SLOT_TAIL: break;
	}
	return "no slot";
}

const char *
facts_relation(uintptr_t addr, uintptr_t base, size_t bytes, size_t *distance)
{
	if (addr < base) {
		*distance = base - addr;
		return "before";
	}
	bool inside = addr - base < bytes || addr == base;
	*distance = inside ? addr - base : addr - base - bytes;
	return inside ? "inside" : "after";
}

uint32_t
facts_thread_number(const struct facts *f, uint32_t tid)
{
	return tid == f->pid ? 0 : tid;
}

/* A frame's name for the token: its symbol, else file and offset. */
static void
print_frame_name(struct print *p, uintptr_t pc)
{
	const struct frame_facts *fr = facts_frame(pc);
	if (fr->symbol != NULL) {
		print_quoted(p, fr->symbol, FACTS_SYMBOL_BYTES);
	} else if (fr->module != NULL) {
		const char *name = strrchr(fr->module->path, '/');
		print_quoted(p, name != NULL ? name + 1 : fr->module->path, PROCMAP_PATH_BYTES);
		print_char(p, '+');
		print_hex(p, pc - fr->module->bias);
	} else {
		print_hex(p, pc);
	}
}

void
facts_print_token(struct print *p, const struct facts *f)
{
	const uintptr_t *pcs;
	size_t n = facts_summary(f, &pcs);
	for (size_t i = 0; i < n && i < FACTS_TOKEN_FRAMES; i++) {
		if (i != 0)
			print_str(p, "--");
		print_frame_name(p, pcs[i]);
	}
}

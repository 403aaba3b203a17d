/* process_log.c - texts of H20: each must be in the first place that takes all of it,
 * descriptor of the one who asked, channel, file, descriptor 2; errno is kept, the
 * buffer is empty afterwards. The model does what the manual of write(2) says, over
 * files of its own. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "log.h"
#include "print.h"

enum { NAME_MOST = 512 - 17, TEXT_BYTES = 4096 };

static struct {
	const char *log, *json;
	bool channel, channel_json;
	uint64_t fd, device, inode;
	int answer_tid;
	char answer[64];
	size_t n[SIM_FILES];                   /* bytes of each file that are accounted for */
	unsigned planned;
} model;

void
process_log_start(void)
{
	memset(&model, 0, sizeof(model));
	model.planned = sim.planned;
	for (unsigned i = 0; i < sim.files; i++)
		model.n[i] = sim_files[i].n;
	log_set_path(NULL);
	log_set_json_path(NULL);
	log_set_channel(NULL);
	log_answer_to(0, 0);
}

static char long_path[600], percent_path[600];

static const char *
path_of(unsigned i)
{
	static const char *const paths[] = { NULL, "", "stderr", "log", "log.%p", "%p", "%%p%p", "%", "dir/log",
		"log.%p.%p", "%q", "stderr%p", long_path, percent_path };

	memset(long_path, 'l', sizeof(long_path) - 1);
	/* just at the bound, once the number is in */
	memset(percent_path, 'p', 480 + i / ARRAY_LEN(paths));
	strcpy(percent_path + 480 + i / ARRAY_LEN(paths), "/%p/%p");
	return paths[i % ARRAY_LEN(paths)];
}

void
process_log_to(const struct sgf_op *op)
{
	if (op->b & 1) {
		model.json = path_of(op->a);
		log_set_json_path(model.json);
	} else {
		model.log = path_of(op->a);
		log_set_path(model.log);
	}
	SG_CHECK(MODEL, log_wants_json() == (model.channel_json || (model.json != NULL && *model.json != 0)),
	    "JSON is wanted, or is not");
}

/* N:N:N, or that and :json; each number fits in 64 bits, the first in an int. */
static bool
is_channel(const char *s)
{
	uint64_t *to[] = { &model.fd, &model.device, &model.inode };

	for (int i = 0; i < 3; i++) {
		unsigned __int128 v = 0;
		if (*s < '0' || *s > '9')
			return false;
		for (; *s >= '0' && *s <= '9'; s++)
			if ((v = v * 10 + (unsigned)(*s - '0')) >> 64 != 0)
				return false;
		*to[i] = (uint64_t)v;
		if (i < 2 && *s++ != ':')
			return false;
	}
	model.channel_json = strcmp(s, ":json") == 0;
	return (*s == 0 || model.channel_json) && model.fd <= INT32_MAX;
}

void
process_channel(const struct sgf_op *op)
{
	static const char *const forms[] = { "%u:%u:%u", "%u:%u:%u:json", "%u:%u", "%u:x%u:%u", "", ":%u:%u:%u",
		"%u:%u:%u:jsonx", "4294967296%u:%u:%u", "%u:18446744073709551616%u:%u", "%u:%u:18446744073709551615",
		"%u:%u:%u ", "%u:18446744073709551616:%u" };
	char spec[128];
	unsigned device = op->imm >> 8 & 3, inode = op->imm >> 10 & 3;

	sim.channel.fd = 9;
	sim.channel.mode = op->imm & 1 ? S_IFREG : op->imm & 2 ? 0 : S_IFSOCK;
	sim.channel.device = 2;
	sim.channel.inode = 3;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(spec, sizeof(spec), forms[op->a % ARRAY_LEN(forms)], op->imm & 4 ? 8u : 9u,
	    device != 3 ? 2u : device, inode != 0 ? 3u : inode);
#pragma GCC diagnostic pop
	model.channel = is_channel(spec);
	model.channel_json &= model.channel;
	log_set_channel(spec);
	SG_CHECK(MODEL, log_has_command() == model.channel, "'%s' is %s channel", spec,
	    model.channel ? "no" : "a");
}

void
process_log_is(const char *log, const char *json, const char *channel)
{
	model.log = log;
	model.json = json;
	model.channel = is_channel(channel);
	model.channel_json &= model.channel;
}

void
process_answer(const struct sgf_op *op)
{
	int pid = op->a % 4 == 0 ? 0 : 100 + op->a % 4, fd = op->b % 4;

	sim.tid = op->imm & 1 ? sim.pid : sim.pid + 1;
	log_answer_to(pid, fd);
	model.answer_tid = pid != 0 ? sim.tid : 0;
	snprintf(model.answer, sizeof(model.answer), "/proc/%d/fd/%d", pid, fd);
	struct sim_file *f = pid != 0 ? sim_file(model.answer, true) : NULL;
	if (f != NULL)
		f->open_errno = op->imm & 2 ? EPERM : 0;
	if (op->imm & 4)
		sim.tid++;
}

/* Which names cannot be opened, and what becomes of the next writes. */
void
process_files(const struct sgf_op *op)
{
	static const int errors[] = { 0, EACCES, ENOENT, EMFILE };
	static const char *const names[] = { "log", "log.4711", "dir/log", "4711" };

	for (unsigned i = 0; i < SIM_PLAN; i++)
		sim.plan[i] = (op->imm >> 4 * i & 15) % SIM_OUTCOMES;
	sim.planned = sim.planned_reads = 0;
	model.planned = 0;
	struct sim_file *f = sim_file(names[op->a % ARRAY_LEN(names)], true);
	if (f != NULL)
		f->open_errno = errors[op->b % ARRAY_LEN(errors)];
}

/* ---- the model ---- */

static char want[SIM_FILES][SIM_FILE_BYTES];
static size_t want_n[SIM_FILES];

/* What the plan says of each call, until all is written or one fails. */
static bool
naive_write(const char *path, const char *text, size_t n, bool once)
{
	struct sim_file *f = sim_file(path, true);
	size_t at = 0, i = f != NULL ? (size_t)(f - sim_files) : 0;

	if (f == NULL || f->open_errno != 0)
		return false;
	for (;;) {
		enum sim_outcome o = model.planned < SIM_PLAN ?
		    (enum sim_outcome)sim.plan[model.planned++] : SIM_WHOLE;
		size_t part = o == SIM_WHOLE ? n - at : o == SIM_HALF ? (n - at) / 2 : 0;
		if (part != 0 && model.n[i] + want_n[i] + part > SIM_FILE_BYTES)
			return false;           /* the disk is full */
		memcpy(want[i] + want_n[i], text + at, part);
		want_n[i] += part;
		at += part;
		if (at == n)
			return true;
		if (o != SIM_EINTR && (once || part == 0))
			return false;
	}
}

static bool
naive_path(const char *path, char *out)
{
	size_t n = 0;

	for (; *path != 0; path++) {
		if (n >= NAME_MOST)
			return false;
		if (path[0] == '%' && path[1] == 'p') {
			n += (size_t)snprintf(out + n, 16, "%d", sim.pid);
			path++;
		} else {
			out[n++] = *path;
		}
	}
	out[n] = 0;
	return n <= NAME_MOST;
}

static bool
naive_file(const char *path, const char *text, size_t n)
{
	char name[SIM_PATH_BYTES];

	return path != NULL && *path != 0 && strcmp(path, "stderr") != 0 && naive_path(path, name) &&
	    naive_write(name, text, n, false);
}

static bool
naive_channel(const char *text, size_t n)
{
	return model.channel && model.fd == (uint64_t)sim.channel.fd && sim.channel.mode == S_IFSOCK &&
	    model.device == sim.channel.device && model.inode == sim.channel.inode &&
	    naive_write("channel:", text, n, true);
}

static void
naive_log(const char *text, size_t n)
{
	bool asked = model.answer_tid != 0 && model.answer_tid == sim.tid;

	if (!(asked && naive_write(model.answer, text, n, false)) && !naive_channel(text, n) &&
	    !naive_file(model.log, text, n))
		naive_write("stderr:", text, n, false);
}

static void
naive_json(const char *text, size_t n)
{
	if (!(model.channel_json && naive_channel(text, n)))
		naive_file(model.json, text, n);
}

static void
compare_files(void)
{
	for (unsigned i = 0; i < sim.files; i++) {
		const struct sim_file *f = &sim_files[i];
		size_t n = f->n - model.n[i];
		SG_CHECK(MODEL, n == want_n[i] && memcmp(f->data + model.n[i], want[i], n) == 0,
		    "'%.40s' has %zu bytes more, not %zu", f->path, n, want_n[i]);
		model.n[i] = f->n;
		sg_note(n);
	}
	SG_CHECK(MODEL, sim_open_fds() == 0, "%u descriptors stay open", sim_open_fds());
	memset(want_n, 0, sizeof(want_n));
}

void
process_wrote(const char *text, size_t n)
{
	naive_log(text, n);
	compare_files();
}

/* A text of some bytes, which may be too long for its buffer. */
void
process_write(const struct sgf_op *op)
{
	char buf[TEXT_BYTES + 64], text[TEXT_BYTES + 64];
	struct print p;
	size_t n = 1 + op->imm % TEXT_BYTES, cap = op->b & 1 ? 64 + op->imm % 512 : sizeof(buf);

	model.planned = sim.planned;
	print_init(&p, buf, cap);
	for (size_t i = 0; i < n; i++)
		print_char(&p, (char)('a' + (i + op->a) % 26));
	bool whole = !p.truncated;
	SG_CHECK(MODEL, whole == (n < cap - 16) && p.len < cap && buf[p.len] == 0, "%zu bytes of %zu in %zu",
	    p.len, n, cap);
	n = p.len;
	memcpy(text, buf, n);
	errno = 77;
	switch (op->a % 4) {
	case 0:
	case 1:
		log_write(&p);
		naive_log(text, n);
		break;
	case 2:
		log_write_json(&p);
		if (whole)
			naive_json(text, n);
		break;
	default:
		log_tell_command(&p);
		naive_channel(text, n);
		p.len = 0;
		break;
	}
	SG_CHECK(ERRNO, errno == 77, "errno is %d after a text", errno);
	SG_CHECK(MODEL, p.len == 0 && p.cap == cap, "the buffer is not empty");
	compare_files();
	SG_CHECK(MODEL, model.planned == sim.planned, "%u writes, not %u", sim.planned, model.planned);
}

/* log.c - see log.h. A text on the channel is one datagram (SOCK_SEQPACKET),
 * so texts of several processes do not mix. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Written at the start only. */
static struct log_target {
	const char *log, *json;
	struct {
		bool set;
		bool json;             /* the other end takes JSON, too */
		uint64_t fd, device, inode;
	} channel;
} ALIGNED(4096) to;

static struct {
	uint32_t tid;          /* whose texts; 0: nobody's */
	char path[PRINT_MIN_BYTES + 32];
} answer;

void
log_set_path(const char *path)
{
	to.log = path;
}

void
log_set_json_path(const char *path)
{
	to.json = path;
}

static const char *
number(const char *s, uint64_t *out)
{
	uint64_t v = 0;
	if (s == NULL || *s < '0' || *s > '9')
		return NULL;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return NULL;
	}
	*out = v;
	return *s == ':' ? s + 1 : s;
}

void
log_set_channel(const char *spec)
{
	const char *s = number(spec, &to.channel.fd);
	s = number(s, &to.channel.device);
	s = number(s, &to.channel.inode);
	to.channel.json = s != NULL && strcmp(s, "json") == 0;
	if (to.channel.json)
		s += strlen("json");
	to.channel.set = s != NULL && *s == 0 && to.channel.fd <= INT32_MAX;
}

void *
log_fixed(size_t *bytes)
{
	*bytes = sizeof(to);
	return &to;
}

static bool
channel_write(const struct print *p)
{
	struct stat st;
	if (!to.channel.set || fstat((int)to.channel.fd, &st) != 0 || !S_ISSOCK(st.st_mode) ||
	    (uint64_t)st.st_dev != to.channel.device || (uint64_t)st.st_ino != to.channel.inode)
		return false;
	long n;
	do
		n = syscall(SYS_sendto, (int)to.channel.fd, p->buf, p->len, MSG_NOSIGNAL, NULL, 0);
	while (n < 0 && errno == EINTR);
	return n == (long)p->len;
}

/* The file with %p filled in, or -1. */
static int
file_open(const char *path)
{
	char name[512];
	struct print p;
	if (path == NULL || path[0] == 0 || strcmp(path, "stderr") == 0)
		return -1;
	print_init(&p, name, sizeof(name));
	for (const char *s = path; *s != 0; s++) {
		if (s[0] == '%' && s[1] == 'p') {
			print_dec(&p, (uint64_t)syscall(SYS_getpid));
			s++;
		} else {
			print_char(&p, *s);
		}
	}
	if (p.truncated)
		return -1;
	return (int)syscall(SYS_openat, AT_FDCWD, name,
	    O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
}

static bool
file_write(const char *path, const struct print *p)
{
	int fd = file_open(path);
	bool ok = fd >= 0 && print_write(fd, p->buf, p->len);
	if (fd >= 0)
		syscall(SYS_close, fd);
	return ok;
}

void
log_answer_to(int pid, int fd)
{
	struct print p;
	answer.tid = pid != 0 ? (uint32_t)syscall(SYS_gettid) : 0;
	print_init(&p, answer.path, sizeof(answer.path));
	print_str(&p, "/proc/");
	print_dec(&p, (uint64_t)pid);
	print_str(&p, "/fd/");
	print_dec(&p, (uint64_t)fd);
}

static bool
answer_write(const struct print *p)
{
	return answer.tid != 0 && answer.tid == (uint32_t)syscall(SYS_gettid) &&
	    file_write(answer.path, p);
}

void
log_write(struct print *p)
{
	int saved = errno;
	if (!answer_write(p) && !channel_write(p) && !file_write(to.log, p))
		print_write(2, p->buf, p->len);
	print_init(p, p->buf, p->cap);
	errno = saved;
}

bool
log_wants_json(void)
{
	return to.channel.json || (to.json != NULL && to.json[0] != 0);
}

void
log_write_json(struct print *p)
{
	int saved = errno;
	if (!p->truncated && (!to.channel.json || !channel_write(p)))
		file_write(to.json, p);
	print_init(p, p->buf, p->cap);
	errno = saved;
}

bool
log_has_command(void)
{
	return to.channel.set;
}

void
log_tell_command(struct print *p)
{
	int saved = errno;
	channel_write(p);
	errno = saved;
}

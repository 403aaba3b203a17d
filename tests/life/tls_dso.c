/* tls_dso.c - one of many modules with thread-local storage: -DTLS_BYTES=n of it,
 * of the model -DTLS_MODEL="...". Dynamic TLS is allocated by the dynamic linker
 * on first touch; initial-exec TLS of a module opened late comes out of a
 * surplus of some hundred bytes that all modules share. */
#include <stdlib.h>
#include <string.h>

int dso_touch(int seed);

struct local {
	void *block;
	int sum;
	unsigned char big[TLS_BYTES - 16];
};

static __thread struct local local __attribute__((tls_model(TLS_MODEL)));

int
dso_touch(int seed)
{
	local.sum += seed;
	if (local.block == NULL) {
		for (size_t i = 0; i < sizeof local.big; i++)
			if (local.big[i] != 0)
				return -1;
		memset(local.big, 0x5a, sizeof local.big);
		local.block = malloc(sizeof local.big);
		memset(local.block, 0x5a, sizeof local.big);
	}
	if (memcmp(local.block, local.big, sizeof local.big) != 0)
		return -1;
	free(local.block);
	local.block = malloc(sizeof local.big);
	memset(local.block, 0x5a, sizeof local.big);
	return local.sum;
}

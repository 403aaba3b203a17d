/* errors.c - the words of the error table (errors.def) that a report needs. */
#include <string.h>

#include "die.h"

struct error_words {
	char id[8];
	char word[28];
	char word_cxx[32];
};

static const struct error_words words[DIE_CODES] = {
#define ERROR(constant, id, word, word_cxx, when) [DIE_##constant] = { id, word, word_cxx },
#include "errors.def"
};

const char *
die_id(enum die_code code)
{
	return code > DIE_NONE && code < DIE_CODES ? words[code].id : "SG-?";
}

const char *
die_word(enum die_code code, const char *api)
{
	if (code <= DIE_NONE || code >= DIE_CODES)
		return "error";
	return strncmp(api, "operator", 8) == 0 ? words[code].word_cxx : words[code].word;
}

/* slotquarantine.c - see slotquarantine.h. */
#include "slotquarantine.h"

enum { LEAST_FREED = 8 };

/* At least one, or the span would be swept without end; and a few, or a quarter, or a
 * sweep would cost more than the slots are worth. */
uint16_t
hook_sweep_at(uint32_t slots, unsigned share_percent)
{
	uint32_t n = slots * share_percent / 100;
	uint32_t least = slots / 4 < LEAST_FREED ? slots / 4 : LEAST_FREED;
	if (n < least)
		n = least;
	return (uint16_t)(n == 0 ? 1 : n);
}

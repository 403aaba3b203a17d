/* slotquarantine.c - see slotquarantine.h. */
#include "slotquarantine.h"

/* At least one, or the span would be swept without end. */
uint16_t
hook_sweep_at(uint32_t slots, unsigned share_percent)
{
	uint32_t n = slots * share_percent / 100;
	return (uint16_t)(n == 0 ? 1 : n);
}

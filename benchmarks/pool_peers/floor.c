/* SPDX-License-Identifier: Apache-2.0 */
/* The least that a request and its reply can take: two processes in C that look at one word each, and copy what stands
 * behind it. What is above this is what a runtime adds. */
#include <stdint.h>
#include <string.h>

#define LINE 64
#define PLACE (LINE + (1 << 20)) /* a word, and behind it the bytes: first the request's, then the reply's */

static inline void await(const uint64_t *word, uint64_t turn)
{
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != turn)
#if defined(__x86_64__)
		__builtin_ia32_pause();
#else
		;
#endif
}

void ask(uint8_t *shared, uint8_t *own, uint64_t size, uint64_t first, uint64_t count)
{
	uint64_t *asked = (uint64_t *)shared, *answered = (uint64_t *)(shared + PLACE);

	for (uint64_t turn = first; turn < first + count; turn++) {
		memcpy(asked + 1, own, size);
		__atomic_store_n(asked, turn, __ATOMIC_RELEASE);
		await(answered, turn);
		memcpy(own, answered + 1, size);
	}
}

void serve(uint8_t *shared, uint8_t *own, uint64_t size, uint64_t first, uint64_t count)
{
	uint64_t *asked = (uint64_t *)shared, *answered = (uint64_t *)(shared + PLACE);

	for (uint64_t turn = first; turn < first + count; turn++) {
		await(asked, turn);
		memcpy(own, asked + 1, size);
		memcpy(answered + 1, own, size);
		__atomic_store_n(answered, turn, __ATOMIC_RELEASE);
	}
}

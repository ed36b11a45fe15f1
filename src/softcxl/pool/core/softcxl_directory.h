/* SPDX-License-Identifier: Apache-2.0
 *
 * The pool's directory, in shared memory: see softcxl_pool.h for the rules, which hold here, too.
 *
 * The arena is memory that all have mapped. It begins with the directory: a header, then sources (memory that regions
 * lie in), slots (who is there) and regions. A pool address names a byte of a source: the source's number in the high
 * 8 bits, the offset in the low 56. Source 0 is the arena itself.
 */
#ifndef SOFTCXL_DIRECTORY_H
#define SOFTCXL_DIRECTORY_H

#include "softcxl_pool.h"

#define SCXL_POOL_MAGIC 0x4c4f4f504c584353ull /* "SCXLPOOL" */
#define SCXL_SOURCES 256
#define SCXL_COPIES 8
#define SCXL_INTENTS 5
#define SCXL_EPOCHS ((1ull << 40) - 1)
#define SCXL_OFFSETS ((1ull << 56) - 1)

/* -- layout ---------------------------------------------------------------------------------------------------- */

struct scxl_header {
	uint64_t magic;
	uint32_t version;
	scxl_u32 boot;     /* 0: a server builds it, 1: it is ready */
	uint64_t size;     /* of the arena, in bytes */
	uint64_t identity; /* random: another pool has another */
	scxl_u64 epoch;    /* of the server: goes up each time one starts */
	scxl_u64 beat;     /* of the server: goes up while it lives */
	uint32_t sources, slots;
	uint64_t regions;
	uint64_t sources_at, slots_at, regions_at; /* offsets in the arena */
	uint64_t calls_at, calls_stride;           /* a table of calls for each slot, to the server */
	uint64_t queue_at, queue_size;             /* the queue that they go through */
	uint64_t heap_at;
	scxl_u64 health; /* goes up when a source's state or a region's copies change */
	uint32_t lease;  /* ms */
	uint32_t clean; /* 1: the last server has ended in order */
	uint64_t regions_used; /* records from this one on have never been used */
	uint8_t reserved1[3944];
};

enum scxl_source_state { SCXL_ABSENT = 0, SCXL_HEALTHY = 1, SCXL_BROKEN = 2 };

struct scxl_source {
	uint64_t size;
	scxl_u32 state;
	uint32_t generation;
	uint8_t name[48];
};

enum scxl_slot_state { SCXL_SLOT_FREE = 0, SCXL_SLOT_LIVE = 1, SCXL_SLOT_DEAD = 2 };
#define SCXL_SLOT_REMOTE 1u /* flags: it is behind a device, and its pid means nothing here */

struct scxl_slot {
	scxl_u64 word; /* epoch (40 bits) << 24 | state */
	uint32_t pid, flags;
	uint64_t start; /* field 22 of /proc/PID/stat */
	uint64_t token; /* a hash of what the owner has to show when it comes again */
	uint8_t reserved0[32];
	/* The owner's. */
	scxl_u64 beat;
	scxl_u64 intent;                   /* number + 1 of a region whose lock it takes or holds; 0: none */
	scxl_u64 journal_at, journal_size; /* the server's: a pool address in the arena, and bytes; 0: none */
	scxl_u64 intents[SCXL_INTENTS - 1]; /* more of them: threads that hold locks at the same time */
	uint8_t name[64];
	uint8_t host[64]; /* two slots of the same host have the same here */
};

enum scxl_region_state { SCXL_REGION_FREE = 0, SCXL_REGION_LIVE = 1, SCXL_REGION_LEAVING = 2 };
#define SCXL_REGION_KEPT 1u
#define SCXL_REGION_ATOMIC 2u
#define SCXL_REGION_CHANNEL 4u
#define SCXL_REGION_PINNED 8u /* somebody looks at its memory: from the server to the next one */
#define SCXL_REGION_OLD 16u   /* none, but where a copy was of region `request` - 1, of generation `lease` */

/* `seq`: writes (40 bits) << 24 | slot of the writer (16) << 8 | number of the copy that is written first (6) << 2 | phase. */
enum scxl_phase {
	SCXL_IDLE = 0,
	SCXL_FIRST = 1,  /* the first copy is written */
	SCXL_OTHERS = 2, /* the others are */
	SCXL_REPLAY = 3, /* all are, out of the writer's journal */
};

struct scxl_region {
	/* The server's. */
	scxl_u64 word; /* generation (40 bits) << 24 | state */
	uint64_t size;
	uint32_t owner, flags, copies, mode;
	uint64_t request, identity; /* which of its owner's requests made it, and whose name it was */
	uint64_t lease;                /* ms that it stays when nobody has it open; 0: for ever */
	uint64_t capacity;             /* bytes that each copy takes */
	/* By compare-and-swap, and whoever has the lock. */
	scxl_u64 lock; /* slot (16 bits) << 48 | epoch of the slot (40) << 8 | 0: free, 1: held */
	scxl_u64 seq;
	scxl_u64 intent_at, intent_length; /* what is written, while the phase is not idle */
	scxl_u32 healthy, joining, poisoned; /* a bit for each copy; joining: written, but not read, and one beyond `copies`
	                                      * is where the server moves a copy to */
	scxl_u32 layout;                     /* goes up when an extent moves */
	struct scxl_sleepers waiting;        /* for the lock */
	scxl_u64 torn; /* what a dead writer left neither old nor new: first (32 bits) << 32 | count, in scxl_torn_unit bytes; 0: nothing */
	scxl_u64 extents[SCXL_COPIES]; /* the pool address of each copy */
	uint8_t name[64];              /* UTF-8, padded with NUL, at most 63 bytes */
};

_Static_assert(sizeof(struct scxl_header) == 4096, "directory header");
_Static_assert(offsetof(struct scxl_header, beat) == 0x28 && offsetof(struct scxl_header, regions) == 0x38, "directory header");
_Static_assert(offsetof(struct scxl_header, heap_at) == 0x78 && offsetof(struct scxl_header, regions_used) == 0x90, "directory header");
_Static_assert(sizeof(struct scxl_source) == 64, "source");
_Static_assert(sizeof(struct scxl_slot) == 256 && offsetof(struct scxl_slot, beat) == 64, "slot");
_Static_assert(offsetof(struct scxl_slot, journal_at) == 80 && offsetof(struct scxl_slot, name) == 128, "slot");
_Static_assert(sizeof(struct scxl_region) == 256 && offsetof(struct scxl_region, lock) == 64, "region");
_Static_assert(offsetof(struct scxl_region, lease) == 48 && offsetof(struct scxl_region, healthy) == 96, "region");
_Static_assert(offsetof(struct scxl_region, waiting) == 112 && offsetof(struct scxl_region, extents) == 128, "region");

/* -- the directory as one has it ------------------------------------------------------------------------------- */

/* Where a source is mapped; base NULL: it is not. */
struct scxl_map {
	uint8_t *base;
	uint64_t size;
};

struct scxl_pool {
	struct scxl_header *header;
	struct scxl_slot *slots;
	struct scxl_region *regions;
	const struct scxl_source *sources;
	uint64_t size, region_count;
	uint32_t slot_count, map_count, source_count;
	const struct scxl_map *maps; /* by number of source; the first is the arena */
	scxl_u32 *journalling;       /* one for all threads that share a slot: the journal is in use */
	uint64_t epoch;              /* of one's own slot */
	uint16_t slot;
};

static inline bool scxl_within(uint64_t size, uint64_t at, uint64_t count, uint64_t each)
{
	return at % SCXL_LINE == 0 && at >= sizeof(struct scxl_header) && at <= size && count <= (size - at) / each;
}

/* Take the directory at the start of maps[0], as slot `slot` of epoch `epoch`. SCXL_EMPTY: a server is building it. */
static inline enum scxl_result scxl_pool_attach(struct scxl_pool *pool, const struct scxl_map *maps, uint32_t map_count, uint16_t slot, uint64_t epoch, scxl_u32 *journalling)
{
	struct scxl_header *header = map_count ? (struct scxl_header *)maps[0].base : NULL;
	uint64_t size, regions, slots_at, regions_at, sources_at;
	uint32_t slots, sources;

	if (!header || maps[0].size < sizeof *header || (uintptr_t)header % SCXL_LINE || map_count > SCXL_SOURCES)
		return SCXL_TOO_LONG;
	if (header->magic != SCXL_POOL_MAGIC || header->version != SCXL_VERSION)
		return SCXL_FOREIGN;
	if (scxl_load(&header->boot) != 1)
		return SCXL_EMPTY;
	size = header->size;
	slots = header->slots;
	regions = header->regions;
	slots_at = header->slots_at;
	regions_at = header->regions_at;
	sources = header->sources;
	sources_at = header->sources_at;
	if (size > maps[0].size || slots > 65536 || slot >= slots || !scxl_within(size, slots_at, slots, sizeof(struct scxl_slot)) ||
	    !scxl_within(size, regions_at, regions, sizeof(struct scxl_region)) || !scxl_within(size, sources_at, sources, sizeof(struct scxl_source)))
		return SCXL_CORRUPT;
	*pool = (struct scxl_pool){
		.header = header, .slots = (struct scxl_slot *)(maps[0].base + slots_at), .regions = (struct scxl_region *)(maps[0].base + regions_at),
		.sources = (const struct scxl_source *)(maps[0].base + sources_at), .source_count = sources,
		.size = size, .region_count = regions, .slot_count = slots, .map_count = map_count, .maps = maps,
		.journalling = journalling, .epoch = epoch & SCXL_EPOCHS, .slot = slot,
	};
	return SCXL_OK;
}

/* The server's: take a free slot. Its epoch goes up, so that what its last owner has left is nobody's. */
static inline enum scxl_result scxl_slot_claim(struct scxl_slot *slot, uint64_t *epoch)
{
	uint64_t word = scxl_load(&slot->word);

	*epoch = ((word >> 24) + 1) & SCXL_EPOCHS;
	if ((word & 0xff) != SCXL_SLOT_FREE || !scxl_swap(&slot->word, word, *epoch << 24 | SCXL_SLOT_LIVE))
		return SCXL_BUSY;
	return SCXL_OK;
}

/* Anybody's: that owner is dead. Only one says so. */
static inline bool scxl_slot_declare_dead(struct scxl_slot *slot, uint64_t epoch)
{
	epoch &= SCXL_EPOCHS;
	return scxl_swap(&slot->word, epoch << 24 | SCXL_SLOT_LIVE, epoch << 24 | SCXL_SLOT_DEAD);
}

/* The server's, once all that a dead or leaving owner held is mended. */
static inline bool scxl_slot_free(struct scxl_slot *slot, uint64_t epoch)
{
	epoch &= SCXL_EPOCHS;
	return scxl_swap(&slot->word, epoch << 24 | SCXL_SLOT_DEAD, epoch << 24 | SCXL_SLOT_FREE) ||
	       scxl_swap(&slot->word, epoch << 24 | SCXL_SLOT_LIVE, epoch << 24 | SCXL_SLOT_FREE);
}

/* Whether who had that slot in that epoch is known to be gone. */
static inline bool scxl_slot_gone(const struct scxl_pool *pool, uint32_t slot, uint64_t epoch)
{
	return slot >= pool->slot_count || scxl_load(&pool->slots[slot].word) != ((epoch & SCXL_EPOCHS) << 24 | SCXL_SLOT_LIVE);
}

static inline scxl_u64 *scxl_slot_intent(struct scxl_slot *slot, unsigned number)
{
	return number ? &slot->intents[number - 1] : &slot->intent;
}

#endif

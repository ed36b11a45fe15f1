/* A region under all interleavings: a write is there whole or not at all, in every copy, for all who read, and its lock is
 * never lost, whoever dies and whenever, also who mends what another left. */
#include "explore.h"
#define SCXL_STEP 8
#define SCXL_TRIES 2
#include "softcxl_region.h"

enum { SLOTS = 6, COPIES = 2, SIZE = 64, LENGTH = 16, JOURNAL = 64, EPOCH = 9, GENERATION = 4 };

static struct {
	struct scxl_header header;
	/* What is known of: */
	struct scxl_source sources[1 + COPIES];
	struct scxl_slot slots[SLOTS];
	struct scxl_region region;
	uint8_t journals[SLOTS][JOURNAL];
	uint8_t copies[COPIES][SIZE] __attribute__((aligned(64)));
	uint8_t acknowledged;            /* the value that was written last */
	uint8_t under_way[PROCESSES];    /* what each writes, if it does not know whether it is there */
	uint8_t mended;                  /* bits: slots */
} shared __attribute__((aligned(64)));

static struct shape {
	struct scenario scenario;
	uint32_t copies, joining, flags;
	bool torn; /* who dies may leave a torn range */
} *shape;

static struct scxl_map maps[1 + COPIES];
static scxl_u32 journalling[PROCESSES + 1]; /* each process has one; it is gone with it */

static void open_as(struct scxl_opened *one, struct scxl_pool *pool, int self)
{
	uint16_t slot = shape->scenario.slot[self];

	CHECK(scxl_pool_attach(pool, maps, 1 + COPIES, slot, EPOCH, &journalling[self]) == SCXL_OK, "cannot attach");
	CHECK(scxl_region_open(one, pool, 0, GENERATION) == SCXL_OK, "cannot open");
}

/* Whoever waits for the lock looks now and then whether its holder is dead. */
static bool may_lock(int self)
{
	uint64_t lock = shared.region.lock; /* no point of a process */

	(void)self;
	return !(lock & 0xff) || dead_slots >> (lock >> 48) & 1;
}

static void lock(struct scxl_opened *one)
{
	enum scxl_result result;
	uint64_t epoch;
	uint32_t slot;

	while ((result = scxl_region_lock(one)) == SCXL_BUSY) {
		if (!scxl_region_holder(one, &slot, &epoch))
			continue;
		saw(dead_slots);
		if (!(dead_slots >> slot & 1)) {
			wait_until(may_lock, false);
			continue;
		}
		scxl_slot_declare_dead(&shared.slots[slot], epoch);
		result = scxl_region_mend(one, slot, epoch);
		CHECK(result == SCXL_OK || result == SCXL_EMPTY || result == SCXL_BUSY || (result == SCXL_TORN && shape->torn), "mending gives %d", result);
	}
	CHECK(result == SCXL_OK, "locking gives %d", result);
}

static void unlock(struct scxl_opened *one) { CHECK(scxl_region_unlock(one) == SCXL_OK, "it had no lock"); }

/* What all these bytes are. */
static uint8_t whole(const uint8_t *bytes)
{
	for (int i = 1; i < LENGTH; i++)
		CHECK(bytes[i] == bytes[0], "a part of a write is there: %d, and then %d", bytes[0], bytes[i]);
	return bytes[0];
}

static void writer(int self)
{
	uint8_t bytes[LENGTH];
	struct scxl_opened one;
	struct scxl_pool pool;

	open_as(&one, &pool, self);
	memset(bytes, self + 1, sizeof bytes);
	lock(&one);
	shared.under_way[self] = (uint8_t)(self + 1);
	CHECK(scxl_region_write(&one, 0, bytes, LENGTH) == SCXL_OK, "cannot write");
	shared.under_way[self] = 0;
	shared.acknowledged = (uint8_t)(self + 1);
	unlock(&one);
}

static void reader(int self)
{
	uint8_t bytes[LENGTH], value, before;
	enum scxl_result result;
	struct scxl_opened one;
	struct scxl_pool pool;

	open_as(&one, &pool, self);
	for (int i = 0; i < 2; i++) {
		before = shared.acknowledged;
		saw(before);
		result = scxl_region_read(&one, 0, bytes, LENGTH, 0);
		if (result == SCXL_BUSY) {
			lock(&one);
			before = shared.acknowledged;
			saw(before);
			result = scxl_region_read_locked(&one, 0, bytes, LENGTH, 0);
			CHECK(result == SCXL_OK || (result == SCXL_TORN && shape->torn && died), "reading within the lock gives %d", result);
			unlock(&one);
		}
		if (result == SCXL_TORN)
			continue;
		CHECK(result == SCXL_OK, "reading gives %d", result);
		value = whole(bytes);
		CHECK(value || !before, "a reader sees what was there before a write that was acknowledged");
	}
}

static bool somebody_died(int self)
{
	(void)self;
	return dead_slots & ~shared.mended;
}

/* As the server sees to the dead. */
static void mender(int self)
{
	struct scxl_opened one;
	struct scxl_pool pool;

	open_as(&one, &pool, self);
	for (;;) {
		wait_until(somebody_died, true);
		saw(dead_slots);
		for (uint16_t slot = 0; slot < SLOTS; slot++) {
			if (!((dead_slots & ~shared.mended) >> slot & 1))
				continue;
			scxl_store(&shared.slots[slot].word, (uint64_t)EPOCH << 24 | SCXL_SLOT_DEAD);
			for (unsigned i = 0; i < SCXL_INTENTS; i++)
				if (scxl_load(scxl_slot_intent(&shared.slots[slot], i)) == 1) {
					enum scxl_result result = scxl_region_mend(&one, slot, EPOCH);
					CHECK(result != SCXL_TORN || shape->torn, "mending tears");
					CHECK(result == SCXL_OK || result == SCXL_EMPTY || result == SCXL_BUSY || result == SCXL_TORN, "mending gives %d", result);
				}
			scxl_store(&shared.slots[slot].word, (uint64_t)EPOCH << 24 | SCXL_SLOT_FREE);
			shared.mended |= (uint8_t)(1u << slot);
		}
	}
}

static void make(void)
{
	shared.header = (struct scxl_header){
		.magic = SCXL_POOL_MAGIC, .version = SCXL_VERSION, .boot = 1, .size = sizeof shared, .sources = 1 + COPIES, .slots = SLOTS, .regions = 1,
		.sources_at = (uint64_t)((uint8_t *)shared.sources - (uint8_t *)&shared), .slots_at = (uint64_t)((uint8_t *)shared.slots - (uint8_t *)&shared),
		.regions_at = (uint64_t)((uint8_t *)&shared.region - (uint8_t *)&shared), .lease = 1000,
	};
	memset(journalling, 0, sizeof journalling);
	for (int i = 0; i < SLOTS; i++) {
		shared.slots[i].word = (uint64_t)EPOCH << 24 | SCXL_SLOT_LIVE;
		shared.slots[i].journal_at = (uint64_t)(shared.journals[i] - (uint8_t *)&shared);
		shared.slots[i].journal_size = JOURNAL;
	}
	shared.region.word = (uint64_t)GENERATION << 24 | SCXL_REGION_LIVE;
	shared.region.size = SIZE;
	shared.region.copies = shape->copies;
	shared.region.flags = shape->flags;
	shared.region.joining = shape->joining;
	shared.region.healthy = ((1u << shape->copies) - 1) & ~shape->joining;
	for (uint64_t i = 0; i < COPIES; i++)
		shared.region.extents[i] = (i + 1) << 56;
}

static void settled(void)
{
	struct scxl_opened one;
	struct scxl_pool pool;
	uint8_t bytes[LENGTH], value;
	enum scxl_result result;
	bool known_of;

	shared.slots[SLOTS - 1].word = (uint64_t)EPOCH << 24 | SCXL_SLOT_LIVE;
	CHECK(scxl_pool_attach(&pool, maps, 1 + COPIES, SLOTS - 1, EPOCH, &journalling[PROCESSES]) == SCXL_OK, "cannot attach");
	CHECK(scxl_region_open(&one, &pool, 0, GENERATION) == SCXL_OK, "cannot open");
	CHECK(!(shared.region.lock & 0xff), "slot %d still has the lock", (int)(shared.region.lock >> 48));
	CHECK(!(shared.region.seq & 3), "a write is still under way");
	CHECK(shape->copies < 2 || !memcmp(shared.copies[0], shared.copies[1], SIZE), "the copies are not alike");
	result = scxl_region_read(&one, 0, bytes, LENGTH, 0);
	if (result == SCXL_BUSY) {
		CHECK(shape->torn && died && shared.region.torn, "it cannot be read");
	} else {
		CHECK(result == SCXL_OK, "reading gives %d in the end", result);
		value = whole(bytes);
		known_of = value == shared.acknowledged;
		for (int i = 0; i < PROCESSES; i++)
			known_of |= value && value == shared.under_way[i];
		CHECK(known_of, "%d is there, and %d was acknowledged", value, shared.acknowledged);
	}
	memset(bytes, 77, sizeof bytes);
	CHECK(scxl_region_lock(&one) == SCXL_OK && scxl_region_write(&one, 0, bytes, LENGTH) == SCXL_OK && scxl_region_unlock(&one) == SCXL_OK, "it cannot be written any more");
	CHECK(scxl_region_read(&one, 0, bytes, LENGTH, 0) == SCXL_OK && whole(bytes) == 77, "it cannot be read any more");
}

#define ALL(most_preempted, most_dead, who) .preemptions = most_preempted, .deaths = most_dead, .mortal = who, .make = make, .settled = settled

static struct shape shapes[] = {
	{{"two copies, one reads", {writer, reader, reader}, {1, 2, 3}, ALL(2, 0, 0)}, .copies = 2},
	{{"two copies", {writer, reader, mender}, {1, 3, 4}, ALL(2, 1, 1)}, .copies = 2},
	{{"two copies, two write", {writer, writer, mender}, {1, 2, 4}, ALL(1, 1, 3)}, .copies = 2},
	{{"two copies, who mends dies", {writer, reader, mender, mender}, {1, 3, 4, 5}, ALL(0, 2, 7)}, .copies = 2},
	{{"one joins", {writer, reader, mender}, {1, 3, 4}, ALL(1, 1, 1)}, .copies = 2, .joining = 2},
	{{"one copy", {writer, reader, mender}, {1, 3, 4}, ALL(1, 1, 1)}, .copies = 1, .torn = true},
	{{"one atomic copy", {writer, writer, mender}, {1, 2, 4}, ALL(1, 1, 1)}, .copies = 1, .flags = SCXL_REGION_ATOMIC},
	{{"one atomic copy is read", {writer, reader, mender}, {1, 3, 4}, ALL(1, 1, 1)}, .copies = 1, .flags = SCXL_REGION_ATOMIC},
};

int main(int count, char **arguments)
{
	known = (uint8_t *)shared.sources;
	known_length = sizeof shared - sizeof shared.header;
	maps[0] = (struct scxl_map){(uint8_t *)&shared, sizeof shared};
	for (int i = 0; i < COPIES; i++)
		maps[1 + i] = (struct scxl_map){shared.copies[i], SIZE};
	start(count, arguments);
	EXPLORE(shapes);
	return 0;
}

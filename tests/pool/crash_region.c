/* A writer of a region dies at each point, and whoever mends what it left dies at each point of that. At each of these
 * states a reader sees the old or the new, whole, or waits; in the end all copies are alike, and what was acknowledged is
 * there. Prints a line for each way to write, the number of points; exits with 1 and a sentence where something is wrong. */
#define SCXL_STEP 512
#define SCXL_STREAM 1024 /* longer ones go past the caches */
#define SCXL_STREAM_OTHERS 1024
#define SCXL_STREAM_READ 1024
#include "dies.h"
#include "softcxl_region.h"

enum { SLOTS = 4, WRITER = 1, MENDER = 2, READER = 3, COPIES = 3, SIZE = 8192, SPARE = 64, JOURNAL = 1024, EPOCH = 9, GENERATION = 4 };

struct shared {
	struct scxl_header header;
	struct scxl_source sources[1 + COPIES];
	struct scxl_slot slots[SLOTS];
	struct scxl_region region;
	uint8_t journals[SLOTS][JOURNAL];
	uint8_t copies[COPIES][SIZE];
	uint64_t acknowledged, reads, stop;
} __attribute__((aligned(64)));
static struct shared *shared;

/* One way to write. */
static const struct way {
	const char *name;
	uint32_t copies, healthy, joining, flags, at, length;
	bool torn, split, poison; /* poison: the first copy has some; it may leave a torn range; it is as many writes as journals fit in it */
} *way, ways[] = {
	{"one copy", 1, 1, 0, 0, 100, 2000, true, false, false},
	{"one atomic copy", 1, 1, 0, SCXL_REGION_ATOMIC, 100, 1000, false, false, false},
	{"one atomic copy, long", 1, 1, 0, SCXL_REGION_ATOMIC, 100, 2500, false, true, false},
	{"one copy and a joining one", 2, 1, 2, 0, 0, 1024, false, false, false},
	{"two copies", 2, 3, 0, 0, 100, 2000, false, false, false},
	{"two copies, all of it", 2, 3, 0, 0, 0, SIZE, false, false, false},
	{"two copies and a joining one", 3, 5, 2, 0, 100, 2000, false, false, false},
	{"three copies", 3, 7, 0, 0, 100, 2000, false, false, false},
	{"one of two is left", 2, 2, 0, 0, 100, 1000, false, false, false},
	{"one of three is left, one joins", 3, 2, 4, 0, 100, 1000, false, false, false},
	{"two copies, one with poison", 2, 3, 0, 0, 100, 1000, false, false, true},
	{"three copies, one with poison", 3, 7, 0, 0, 100, 1000, false, false, true},
	{"a word in one copy", 1, 1, 0, 0, 104, 8, false, false, false},
	{"a word in two copies", 2, 3, 0, 0, 104, 8, false, false, false},
};

static struct scxl_map maps[1 + COPIES];
static struct scxl_pool pool;
static scxl_u32 journalling;

static struct scxl_opened opened(uint16_t slot)
{
	struct scxl_opened one;

	CHECK(scxl_pool_attach(&pool, maps, 1 + COPIES, slot, EPOCH, &journalling) == SCXL_OK, "cannot attach");
	CHECK(scxl_region_open(&one, &pool, 0, GENERATION) == SCXL_OK, "cannot open");
	return one;
}

static uint8_t pattern(uint32_t at, uint8_t value) { return (uint8_t)(at * 7 + value); }

static void fill(uint8_t *to, uint32_t at, uint32_t length, uint8_t value)
{
	for (uint32_t i = 0; i < length; i++)
		to[i] = pattern(at + i, value);
}

/* How many of these bytes are of that value: all, none, or some. */
static uint32_t alike(const uint8_t *bytes, uint32_t at, uint32_t length, uint8_t value)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < length; i++)
		count += bytes[i] == pattern(at + i, value);
	return count;
}

static void make(void)
{
	memset(shared, 0, sizeof *shared);
	shared->header = (struct scxl_header){
		.magic = SCXL_POOL_MAGIC, .version = SCXL_VERSION, .boot = 1, .size = sizeof *shared, .sources = 1 + COPIES, .slots = SLOTS, .regions = 1,
		.sources_at = offsetof(struct shared, sources), .slots_at = offsetof(struct shared, slots), .regions_at = offsetof(struct shared, region), .lease = 1000,
	};
	for (int i = 0; i < SLOTS; i++) {
		scxl_store(&shared->slots[i].word, (uint64_t)EPOCH << 24 | SCXL_SLOT_LIVE);
		scxl_store(&shared->slots[i].journal_at, offsetof(struct shared, journals[i]));
		scxl_store(&shared->slots[i].journal_size, JOURNAL);
	}
	shared->region.size = SIZE;
	shared->region.copies = way->copies;
	shared->region.flags = way->flags;
	scxl_store(&shared->region.healthy, way->healthy);
	scxl_store(&shared->region.joining, way->joining);
	scxl_store(&shared->region.poisoned, way->poison);
	scxl_store(&shared->region.intent_at, SIZE - SPARE); /* of a write that was */
	scxl_store(&shared->region.intent_length, SPARE);
	scxl_store(&shared->region.word, (uint64_t)GENERATION << 24 | SCXL_REGION_LIVE);
	for (uint64_t i = 0; i < COPIES; i++) {
		scxl_store(&shared->region.extents[i], (i + 1) << 56);
		fill(shared->copies[i], 0, SIZE, 0);
	}
}

static uint8_t bytes[SIZE];

static void writer(void)
{
	struct scxl_opened one = opened(WRITER);

	fill(bytes, way->at, way->length, 1);
	CHECK(scxl_region_lock(&one) == SCXL_OK, "the writer cannot lock");
	CHECK(scxl_region_write(&one, way->at, bytes, way->length) == SCXL_OK, "cannot write");
	shared->acknowledged = 1;
	CHECK(scxl_region_unlock(&one) == SCXL_OK, "cannot unlock");
}

static void dead(uint16_t slot) { CHECK(scxl_slot_declare_dead(&shared->slots[slot], EPOCH), "slot %d is dead already", slot); }

/* What a client does that waits for the lock. */
static void client(void)
{
	struct scxl_opened one = opened(MENDER);
	enum scxl_result result;
	uint64_t epoch;
	uint32_t slot;

	while ((result = scxl_region_lock(&one)) == SCXL_BUSY && scxl_region_holder(&one, &slot, &epoch)) {
		CHECK(slot == WRITER, "slot %d has the lock", slot);
		result = scxl_region_mend(&one, slot, epoch);
		CHECK(result == SCXL_OK || (result == SCXL_TORN && way->torn), "mending gives %d", result);
	}
	CHECK(result == SCXL_OK, "locking gives %d", result);
	CHECK(scxl_region_unlock(&one) == SCXL_OK, "cannot unlock");
}

/* Parts that are each whole by themselves. */
static void whole(const uint8_t *there, uint8_t least)
{
	uint32_t part = way->split ? JOURNAL : way->length;
	bool old = false;

	for (uint32_t at = 0; at < way->length; at += part) {
		uint32_t length = way->length - at < part ? way->length - at : part;
		uint32_t new = alike(there + at, way->at + at, length, 1);
		CHECK(new == length || (!new && alike(there + at, way->at + at, length, 0) == length), "%u of %u bytes at %u are new", new, length, at);
		CHECK(!(new && old), "a later part is there, and an earlier one is not");
		CHECK(new || !least, "what was acknowledged is not there");
		old = !new;
	}
}

/* A reader that has no lock, at a state in which somebody has died. */
static void look(void)
{
	struct scxl_opened one = opened(READER);
	uint8_t there[SIZE];
	enum scxl_result result = scxl_region_read(&one, way->at, there, way->length, 0);

	CHECK(result == SCXL_OK || result == SCXL_BUSY, "reading gives %d", result);
	CHECK(result == SCXL_OK || way->poison || !(way->healthy & (way->healthy - 1)), "with two healthy copies a reader has to wait");
	if (result == SCXL_OK)
		whole(there, (uint8_t)shared->acknowledged);
	if (way->at + way->length < SIZE) {
		CHECK(scxl_region_read(&one, SIZE - SPARE, there, SPARE, 0) == SCXL_OK, "bytes that nobody writes cannot be read");
		CHECK(alike(there, SIZE - SPARE, SPARE, 0) == SPARE, "bytes that nobody writes have changed");
	}
	/* One that does not reach the first copy. */
	maps[1].base = NULL;
	result = scxl_region_read(&one, way->at, there, way->length, 0);
	maps[1].base = shared->copies[0];
	CHECK(result == SCXL_OK || result == SCXL_BUSY || (way->healthy == 1 && result == SCXL_UNMAPPED), "reading gives %d", result);
	if (result == SCXL_OK)
		whole(there, (uint8_t)shared->acknowledged);
}

/* In the end. */
static void settled(void)
{
	struct scxl_opened one = opened(MENDER);
	uint32_t targets = way->healthy | way->joining, first = (uint32_t)__builtin_ctz(targets);
	uint8_t there[SIZE];
	enum scxl_result result;
	uint32_t slot;
	uint64_t epoch;

	CHECK(!scxl_region_holder(&one, &slot, &epoch), "slot %u still has the lock", slot);
	CHECK(!(scxl_load(&shared->region.seq) & 3), "a write is still under way");
	for (uint32_t copy = 0; copy < way->copies; copy++)
		CHECK(!(targets >> copy & 1) || !memcmp(shared->copies[copy], shared->copies[first], SIZE), "copy %u is not as copy %u", copy, first);
	result = scxl_region_read(&one, way->at, there, way->length, 0);
	if (result == SCXL_BUSY) {
		CHECK(scxl_region_read_locked(&one, way->at, there, way->length, 0) == SCXL_TORN && way->torn, "it cannot be read");
		CHECK(!shared->acknowledged, "what was acknowledged is torn");
		CHECK(shared->region.torn == ((uint64_t)way->at << 32 | way->length), "it says torn: %llx", (unsigned long long)shared->region.torn);
		CHECK(scxl_region_read_locked(&one, way->at - 8, there, 9, 0) == SCXL_TORN, "the first torn byte can be read");
		CHECK(scxl_region_read(&one, way->at - 8, there, 8, 0) == SCXL_OK, "the byte before what is torn cannot be read");
		CHECK(scxl_region_read(&one, way->at + way->length, there, 8, 0) == SCXL_OK, "the byte after what is torn cannot be read");
	} else {
		CHECK(result == SCXL_OK, "reading gives %d", result);
		whole(there, (uint8_t)shared->acknowledged);
	}
	/* As good as new. */
	fill(bytes, 0, SIZE, 2);
	CHECK(scxl_region_lock(&one) == SCXL_OK, "cannot lock");
	for (uint32_t at = 0; at < SIZE; at += SIZE / 2)
		CHECK(scxl_region_write(&one, at, bytes + at, SIZE / 2) == SCXL_OK, "cannot write any more");
	CHECK(scxl_region_write(&one, way->at, bytes + way->at, way->length) == SCXL_OK, "cannot write any more");
	CHECK(scxl_region_unlock(&one) == SCXL_OK, "cannot unlock");
	CHECK(scxl_region_read(&one, 0, there, SIZE, 0) == SCXL_OK && alike(there, 0, SIZE, 2) == SIZE, "cannot read any more");
}

/* Let the writer die at `point`, and the first that mends at each of its points. Returns whether the writer died. */
static bool dying(int point)
{
	for (int mending = 1;; mending++) {
		struct scxl_opened one;
		bool died, again;

		make();
		fatal = point;
		died = dies(writer);
		look();
		if (died)
			dead(WRITER);
		fatal = mending;
		again = dies(client);
		look();
		if (again) {
			dead(MENDER);
			scxl_store(&shared->slots[MENDER].word, (uint64_t)(EPOCH + 1) << 24 | SCXL_SLOT_LIVE); /* started again */
			scxl_store(&shared->slots[MENDER].intent, 0);
		}
		one = opened(READER); /* as a server does, told which slots are dead; twice is as good as once */
		for (int turn = 0; turn < 2; turn++)
			for (uint16_t slot = WRITER; slot <= MENDER; slot++) {
				enum scxl_result result = scxl_region_mend(&one, slot, EPOCH);
				CHECK(result == SCXL_OK || result == SCXL_EMPTY || (result == SCXL_TORN && way->torn), "mending gives %d", result);
			}
		scxl_store(&shared->slots[MENDER].word, (uint64_t)EPOCH << 24 | SCXL_SLOT_LIVE);
		settled();
		if (!again)
			return died;
	}
}

/* -- two at the same time ------------------------------------------------------------------------------------------ */

static void reading(void)
{
	struct scxl_opened one = opened(READER);
	uint8_t there[SIZE];

	while (!*(volatile uint64_t *)&shared->stop) {
		enum scxl_result result = scxl_region_read(&one, way->at, there, way->length, 0);
		CHECK(result == SCXL_OK || result == SCXL_BUSY, "reading gives %d", result);
		if (result != SCXL_OK)
			continue;
		CHECK(alike(there, way->at, way->length, (uint8_t)(there[0] - way->at * 7)) == way->length, "a reader sees a part of a write");
		shared->reads++;
	}
}

static void racing(void)
{
	struct scxl_opened one;
	pid_t child;
	int status;

	make();
	child = fork();
	if (!child) {
		reading();
		_exit(0);
	}
	one = opened(WRITER);
	for (int turn = 0; turn < 3000 || (*(volatile uint64_t *)&shared->reads < 50 && turn < 3000000); turn++) {
		fill(bytes, way->at, way->length, (uint8_t)turn);
		CHECK(scxl_region_lock(&one) == SCXL_OK, "cannot lock");
		CHECK(scxl_region_write(&one, way->at, bytes, way->length) == SCXL_OK, "cannot write");
		CHECK(scxl_region_unlock(&one) == SCXL_OK, "cannot unlock");
	}
	shared->stop = 1;
	waitpid(child, &status, 0);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "the reader ended with %x", status);
	CHECK(shared->reads >= 50, "the reader has read %d times", (int)shared->reads);
}

int main(void)
{
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	setvbuf(stdout, NULL, _IONBF, 0);
	maps[0] = (struct scxl_map){(uint8_t *)shared, sizeof *shared};
	for (int i = 0; i < COPIES; i++)
		maps[1 + i] = (struct scxl_map){shared->copies[i], SIZE};
	for (way = ways; way < ways + sizeof ways / sizeof *ways; way++) {
		int point = 1;
		while (dying(point))
			point++;
		printf("%s %d\n", way->name, point - 1);
		if (!way->split && way->length > 8) {
			fatal = 0;
			racing();
		}
	}
	return 0;
}

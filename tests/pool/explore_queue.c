/* The queue under all interleavings: each record that was put is taken once, in order; nothing is left behind, nobody waits
 * for ever, whoever dies and whenever. */
#include "explore.h"
#include "explore_mend.h"

enum { STRIDE = 64, CELLS_MOST = 4, VALUES = 16, SETUP = 15, CHECKER = 14 };

static struct {
	uint8_t memory[SCXL_QUEUE_HEADER + CELLS_MOST * STRIDE] __attribute__((aligned(64)));
	uint8_t put[VALUES], taken[VALUES];
	uint64_t ticket[VALUES], most; /* the highest ticket of those that were taken */
	uint64_t of_dead;              /* bits: tickets that somebody had who died */
	uint32_t mended;               /* bits: slots */
} shared __attribute__((aligned(64)));

static struct shape {
	struct scenario scenario;
	uint32_t cells, turned, there; /* there: so many records are in it at first */
	int count[PROCESSES];          /* how many each puts or takes */
} *shape;

static struct scxl_user user(uint16_t slot)
{
	struct scxl_user one;

	CHECK(scxl_queue_attach(&one, shared.memory, sizeof shared.memory, slot) == SCXL_OK, "cannot attach");
	return one;
}

struct step {
	struct scxl_user *user;
	uint64_t value;
};

static enum scxl_result put(struct scxl_user *one, uint64_t *value)
{
	return scxl_queue_put(one, value, 8, (uint32_t)*value);
}

static enum scxl_result try_put(void *what)
{
	struct step *step = what;
	return put(step->user, &step->value);
}

static enum scxl_result get(struct scxl_user *one, uint64_t *value)
{
	uint64_t claimed, most = shared.most;
	uint32_t length, kind;
	enum scxl_result result = scxl_queue_claim(one, &claimed, &length, &kind);

	saw(most);
	if (result != SCXL_OK)
		return result;
	CHECK(claimed >= most || died, "ticket %d is taken after %d", (int)claimed, (int)most);
	CHECK(length == 8, "a length is %u", length);
	memcpy(value, scxl_queue_bytes(one, claimed), 8);
	CHECK(*value < VALUES && kind == *value, "a record is %d, its kind %u", (int)*value, kind);
	result = scxl_queue_release(one, claimed);
	if (result == SCXL_OK) {
		shared.taken[*value]++;
		shared.ticket[*value] = claimed + 1;
		shared.most = claimed + 1 > shared.most ? claimed + 1 : shared.most;
	}
	return result;
}

static enum scxl_result try_get(void *what)
{
	struct step *step = what;
	return get(step->user, &step->value);
}

static void putter(int self)
{
	struct scxl_user one = user(shape->scenario.slot[self]);

	for (int i = 0; i < shape->count[self]; i++) {
		struct step step = {&one, (uint64_t)self * 4 + (uint64_t)i};
		enum scxl_result result = waited(try_put, &step, &one.queue->producers);
		CHECK(result == SCXL_OK, "putting gives %d", result);
		shared.put[step.value]++;
		wake(&one.queue->consumers);
	}
}

static void getter(int self)
{
	struct scxl_user one = user(shape->scenario.slot[self]);

	for (int i = 0; i < shape->count[self]; i++) {
		struct step step = {&one, 0};
		enum scxl_result result = waited(try_get, &step, &one.queue->consumers);
		CHECK(result == SCXL_OK, "taking gives %d", result);
		wake(&one.queue->producers);
	}
}

static void mender(int self)
{
	(void)self;
	mend_as(user(CHECKER), NULL);
}

/* One who was there before, and to whom it does not matter what comes of it. */
static void careless(int self)
{
	struct scxl_user one = {(struct scxl_queue *)shared.memory, shared.memory + SCXL_QUEUE_HEADER, shape->cells - 1, STRIDE, shape->scenario.slot[self], 0};

	for (int i = 0; i < shape->count[self]; i++) {
		uint64_t value = (uint64_t)self * 4 + (uint64_t)i;
		put(&one, &value);
	}
}

static void maker(int self)
{
	(void)self;
	CHECK(scxl_queue_make(shared.memory, sizeof shared.memory, shape->cells, STRIDE, 0) == SCXL_OK, "cannot make anew");
}

static void make(void)
{
	struct scxl_user one;
	uint64_t value;

	CHECK(scxl_queue_make(shared.memory, sizeof shared.memory, shape->cells, STRIDE, 0) == SCXL_OK, "cannot make");
	one = user(SETUP);
	for (uint32_t i = 0; i < shape->turned; i++) {
		value = 0;
		CHECK(put(&one, &value) == SCXL_OK && get(&one, &value) == SCXL_OK, "cannot turn");
	}
	shared.taken[0] = 0;
	shared.ticket[0] = shared.most = 0;
	for (value = 12; value < 12 + shape->there; value++) {
		CHECK(put(&one, &value) == SCXL_OK, "cannot fill");
		shared.put[value]++;
	}
}

/* Somebody has written over the cells. */
static void make_spoilt(void)
{
	make();
	for (uint32_t i = 0; i < shape->cells; i++)
		scxl_store((scxl_u64 *)(shared.memory + SCXL_QUEUE_HEADER + i * STRIDE), scxl_word(1u << 30, 0, (enum scxl_cell_state)0x7f));
}

static void like_new(struct scxl_user *one)
{
	uint64_t value;

	for (uint32_t turn = 0; turn < 2; turn++) {
		for (uint32_t i = 0; i < shape->cells; i++) {
			value = i;
			CHECK(put(one, &value) == SCXL_OK, "cannot put any more");
		}
		for (uint32_t i = 0; i < shape->cells; i++)
			CHECK(get(one, &value) == SCXL_OK && value == i, "cannot take any more");
		CHECK(get(one, &value) == SCXL_EMPTY, "there is more than was put");
	}
}

static struct scxl_user drained(void)
{
	struct scxl_user one = user(CHECKER);
	enum scxl_result result;
	uint64_t value;

	while ((result = get(&one, &value)) == SCXL_OK)
		;
	CHECK(result == SCXL_EMPTY, "draining ends with %d", result);
	return one;
}

static void settled(void)
{
	struct scxl_user one = drained();

	for (uint64_t value = 0; value < VALUES; value++) {
		CHECK(shared.taken[value] >= shared.put[value], "record %d is lost", (int)value);
		CHECK(shared.taken[value] <= 1, "record %d is there twice", (int)value);
		CHECK(value % 4 == 0 || !shared.ticket[value] || shared.ticket[value] > shared.ticket[value - 1], "record %d is before %d", (int)value, (int)value - 1);
	}
	like_new(&one);
}

/* Nothing holds but that it is a queue: what was in there is found elsewhere. */
static void settled_anew(void)
{
	struct scxl_user one = drained();

	like_new(&one);
}

#define ALL(most_preempted, most_dead, who) .preemptions = most_preempted, .deaths = most_dead, .mortal = who, .make = make, .settled = settled

static struct shape shapes[] = {
	{{"two take", {getter, getter, mender}, {1, 2, 13}, ALL(3, 1, 3)}, 2, 0, 2, {1, 1}},
	{{"three take", {getter, getter, getter, mender}, {1, 2, 3, 13}, ALL(2, 1, 7)}, 4, 3, 4, {1, 1, 1}},
	{{"one puts, two take", {putter, getter, getter, mender}, {1, 2, 3, 13}, ALL(1, 1, 2)}, 2, 1, 1, {2, 1, 2}},
	{{"two put, one takes", {putter, putter, getter, mender}, {1, 2, 3, 13}, ALL(2, 1, 2)}, 2, 1, 1, {2, 1, 3}},
	{{"two sleep", {putter, getter, getter}, {1, 2, 3}, ALL(3, 0, 0)}, 2, 1, 0, {2, 1, 1}},
	{{"two put, two take", {putter, putter, getter, getter}, {1, 2, 3, 4}, ALL(1, 0, 0)}, 2, 1, 0, {1, 2, 2, 1}},
	{{"two threads take and die", {getter, getter, getter, mender}, {1, 1, 3, 13}, ALL(2, 1, 3)}, 4, 3, 4, {1, 1, 1}},
	{{"two of three who take die", {getter, getter, getter, mender}, {1, 2, 3, 13}, ALL(1, 2, 7)}, 4, 0, 3, {1, 1, 1}},
	{{"made anew", {maker, careless, careless}, {1, 2, 3}, .preemptions = 1, .make = make_spoilt, .settled = settled_anew}, 2, 8, 0, {0, 2, 1}},
	{{"who mends dies", {getter, getter, mender, mender}, {1, 2, 12, 13}, ALL(2, 2, 5)}, 2, 1, 2, {1, 1}},
};

int main(int count, char **arguments)
{
	known = (uint8_t *)&shared;
	known_length = sizeof shared;
	mended = &shared.mended;
	start(count, arguments);
	EXPLORE(shapes);
	return 0;
}

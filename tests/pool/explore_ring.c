/* A ring under all interleavings: what was sent comes once, in order, be it that either end dies and another takes its place. */
#include "explore.h"
#include "explore_wait.h"

enum { VALUES = 8, SIZE = SCXL_RING_HEADER + 64 };

static struct {
	uint8_t memory[SIZE] __attribute__((aligned(64)));
	uint8_t sent, got; /* how many were acknowledged; how many came */
	uint8_t next;      /* the value that has to come next, or the one after it if its taker died */
	uint8_t pushing;   /* the value that is being sent */
} shared __attribute__((aligned(64)));

static struct shape {
	struct scenario scenario;
	int count;
} *shape;

struct step {
	struct scxl_end *end;
	uint64_t value;
};

static enum scxl_result try_push(void *what)
{
	struct step *step = what;

	return scxl_ring_push(step->end, &step->value, 8, (uint32_t)step->value);
}

static enum scxl_result try_next(void *what)
{
	struct step *step = what;
	uint32_t length, kind;
	enum scxl_result result = scxl_ring_next(step->end, &length, &kind);

	if (result == SCXL_OK) {
		scxl_ring_take(step->end, &step->value, length);
		CHECK(length == 8 && kind == step->value, "a record is %d, of %u bytes, its kind %u", (int)step->value, length, kind);
		CHECK(step->value == shared.next, "%d comes, and not %d", (int)step->value, shared.next);
		shared.next++;
		shared.got++;
	}
	return result;
}

static void sends(void)
{
	struct scxl_end end;

	CHECK(scxl_ring_attach(&end, shared.memory, SIZE, true) == SCXL_OK, "a producer cannot attach");
	while (shared.pushing < shape->count) {
		struct step step = {&end, shared.pushing};
		CHECK(waited(try_push, &step, &end.ring->producer) == SCXL_OK, "cannot send");
		shared.pushing++;
		shared.sent++;
		wake(&end.ring->consumer);
	}
	scxl_ring_close(end.ring, true);
	wake(&end.ring->consumer);
}

static void receives(void)
{
	struct scxl_end end;
	struct step step = {&end, 0};
	enum scxl_result result;

	CHECK(scxl_ring_attach(&end, shared.memory, SIZE, false) == SCXL_OK, "a consumer cannot attach");
	while ((result = waited(try_next, &step, &end.ring->consumer)) == SCXL_OK)
		wake(&end.ring->producer);
	CHECK(result == SCXL_CLOSED, "receiving ends with %d", result);
}

static bool first_died(int self)
{
	(void)self;
	return dead_slots;
}

static void producer(int self)
{
	(void)self;
	sends();
}

static void consumer(int self)
{
	(void)self;
	receives();
}

/* Whether the last record of who died is there it cannot know but by the ring. */
static void next_producer(int self)
{
	struct scxl_end end;

	wait_until(first_died, true);
	CHECK(scxl_ring_attach(&end, shared.memory, SIZE, true) == SCXL_OK, "a producer cannot attach");
	CHECK(end.own == shared.sent * 16u || end.own == shared.sent * 16u + 16, "the ring ends at %d, and %d records were sent", (int)end.own, shared.sent);
	(void)self;
	shared.pushing = shared.sent = (uint8_t)(end.own / 16);
	wake(&end.ring->consumer);
	sends();
}

/* Who died may have taken one, and nobody knows. */
static void next_consumer(int self)
{
	struct scxl_end end;

	wait_until(first_died, true);
	(void)self;
	CHECK(scxl_ring_attach(&end, shared.memory, SIZE, false) == SCXL_OK, "a consumer cannot attach");
	CHECK(end.own == shared.next * 16u, "the ring begins at %d, and %d is next", (int)end.own, shared.next);
	wake(&end.ring->producer);
	receives();
}

static void make(void) { CHECK(scxl_ring_make(shared.memory, SIZE) == SCXL_OK, "cannot make"); }

static void settled(void) { CHECK(shared.got == shape->count && shared.sent == shape->count, "%d were sent, %d came", shared.sent, shared.got); }

#define ALL(most_preempted, most_dead, who) .preemptions = most_preempted, .deaths = most_dead, .mortal = who, .make = make, .settled = settled

static struct shape shapes[] = {
	{{"a ring", {producer, consumer}, {1, 2}, ALL(3, 0, 0)}, 6},
	{{"its producer dies", {producer, consumer, next_producer}, {1, 2, 3}, ALL(2, 1, 1)}, 6},
	{{"its consumer dies", {producer, consumer, next_consumer}, {1, 2, 3}, ALL(2, 1, 2)}, 6},
};

int main(int count, char **arguments)
{
	known = (uint8_t *)&shared;
	known_length = sizeof shared;
	start(count, arguments);
	EXPLORE(shapes);
	return 0;
}

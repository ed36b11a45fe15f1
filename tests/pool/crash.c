/* A process dies at each point of each operation on shared memory; who mends it then must find nothing lost, nothing
 * twice, and nothing stuck. Prints a line for each operation, the number of points at which it died; exits with 1 and a
 * sentence where something is wrong. */
#include "dies.h"
#include "softcxl_calls.h"

enum { CELLS = 4, STRIDE = 64, ALIVE = 1, DEAD = 2, MARK = 7, SIZE = 65536 };

struct shared {
	uint8_t memory[SIZE] __attribute__((aligned(64)));
	uint64_t done, seen[64]; /* what the one that dies has been told */
};
static struct shared *shared;

static struct scxl_user user(uint16_t slot)
{
	struct scxl_user one;
	CHECK(scxl_queue_attach(&one, shared->memory, SIZE, slot) == SCXL_OK, "cannot attach");
	return one;
}

static void mend(void)
{
	struct scxl_user one = user(ALIVE);
	for (int again = 0; again < 2; again++)
		for (uint32_t cell = 0; cell < CELLS; cell++)
			scxl_queue_mend(&one, cell, DEAD);
}

/* Everything that is there, in order; returns how many. */
static int drain(uint64_t *values)
{
	struct scxl_user one = user(ALIVE);
	uint8_t cell[STRIDE];
	uint32_t length, kind;
	int count = 0;
	enum scxl_result result;

	while ((result = scxl_queue_get(&one, cell, sizeof cell, &length, &kind)) == SCXL_OK)
		memcpy(&values[count++], cell, 8);
	CHECK(result == SCXL_EMPTY, "draining ended with %d", result);
	return count;
}

static void fill(uint16_t slot, uint64_t first, int count)
{
	struct scxl_user one = user(slot);
	for (int i = 0; i < count; i++) {
		uint64_t value = first + i;
		CHECK(scxl_queue_put(&one, &value, 8, 0) == SCXL_OK, "value %llu cannot be put", (unsigned long long)value);
		if (slot == DEAD)
			shared->done++;
	}
}

static void putter(void) { fill(DEAD, 1, 3); }

static void getter(void)
{
	struct scxl_user one = user(DEAD);
	uint8_t cell[STRIDE];
	uint32_t length, kind;
	for (int i = 0; i < 3; i++)
		if (scxl_queue_get(&one, cell, sizeof cell, &length, &kind) == SCXL_OK)
			memcpy(&shared->seen[shared->done++], cell, 8);
}

/* As good as new: filled and emptied for two turns. */
static void still_works(void)
{
	uint64_t values[64];
	for (int turn = 0; turn < 2 * CELLS; turn++) {
		fill(ALIVE, 100, CELLS);
		CHECK(drain(values) == CELLS && values[0] == 100 && values[CELLS - 1] == 100 + CELLS - 1, "the queue is not whole any more");
	}
}

static void queue(int turned)
{
	uint64_t values[64];
	memset(shared, 0, sizeof *shared);
	CHECK(scxl_queue_make(shared->memory, SIZE, CELLS, STRIDE, MARK) == SCXL_OK, "cannot make");
	for (int i = 0; i < turned; i++) {
		fill(ALIVE, 50, 1);
		drain(values);
	}
}

static int putting(int turned)
{
	for (fatal = 1;; fatal++) {
		uint64_t values[64];
		queue(turned);
		bool died = dies(putter);
		mend();
		int count = drain(values);
		CHECK((uint64_t)count == shared->done || (uint64_t)count == shared->done + 1, "%d values, %d were acknowledged", count, (int)shared->done);
		for (int i = 0; i < count; i++)
			CHECK(values[i] == (uint64_t)i + 1, "value %d is %llu", i, (unsigned long long)values[i]);
		still_works();
		if (!died)
			return fatal - 1;
	}
}

static int getting(int turned, int there)
{
	for (fatal = 1;; fatal++) {
		uint64_t values[64];
		int lost = 0;
		queue(turned);
		fill(ALIVE, 1, there);
		bool died = dies(getter);
		mend();
		int count = drain(values), at = 0;
		for (int i = 0; i < (int)shared->done; i++)
			CHECK(shared->seen[i] == (uint64_t)i + 1, "value %d was seen as %llu", i, (unsigned long long)shared->seen[i]);
		for (int value = shared->done + 1; value <= there; value++) {
			if (at < count && values[at] == (uint64_t)value)
				at++;
			else
				lost++;
		}
		CHECK(at == count, "a value is there twice");
		/* One may have been on its way to who died, out of the queue already; it is the first. */
		CHECK(lost <= 1 && (!lost || (died && at == there - (int)shared->done - 1)), "%d values are lost", lost);
		still_works();
		if (!died)
			return fatal - 1;
	}
}

/* -- ring ------------------------------------------------------------------------------------------------------------ */

static void sender(void)
{
	struct scxl_end end;
	CHECK(scxl_ring_attach(&end, shared->memory, 512, true) == SCXL_OK, "cannot attach");
	for (uint64_t value = 1; value <= 5; value++)
		if (scxl_ring_push(&end, &value, 8, 7) == SCXL_OK)
			shared->done++;
}

static void receiver(void)
{
	struct scxl_end end;
	uint32_t length, kind;
	uint64_t value;
	CHECK(scxl_ring_attach(&end, shared->memory, 512, false) == SCXL_OK, "cannot attach");
	while (scxl_ring_next(&end, &length, &kind) == SCXL_OK) {
		scxl_ring_take(&end, &value, length);
		shared->seen[shared->done++] = value;
	}
}

static int sending(void)
{
	for (fatal = 1;; fatal++) {
		memset(shared, 0, sizeof *shared);
		CHECK(scxl_ring_make(shared->memory, 512) == SCXL_OK, "cannot make");
		bool died = dies(sender);
		uint64_t sent = shared->done;
		shared->done = 0;
		receiver();
		CHECK(shared->done == sent || shared->done == sent + 1, "%d values, %d were acknowledged", (int)shared->done, (int)sent);
		for (uint64_t i = 0; i < shared->done; i++)
			CHECK(shared->seen[i] == i + 1, "value %d is %llu", (int)i, (unsigned long long)shared->seen[i]);
		if (!died)
			return fatal - 1;
	}
}

static int receiving(void)
{
	for (fatal = 1;; fatal++) {
		memset(shared, 0, sizeof *shared);
		CHECK(scxl_ring_make(shared->memory, 512) == SCXL_OK, "cannot make");
		sender();
		uint64_t sent = shared->done;
		shared->done = 0;
		bool died = dies(receiver);
		uint64_t before = shared->done;
		receiver(); /* its successor goes on where it was */
		CHECK(shared->done == sent || (died && shared->done == sent - 1), "%d of %d values came", (int)shared->done, (int)sent);
		for (uint64_t i = 0; i < shared->done; i++)
			CHECK(shared->seen[i] == i + 1 + (i >= before && shared->done < sent), "value %d is %llu", (int)i, (unsigned long long)shared->seen[i]);
		if (!died)
			return fatal - 1;
	}
}

/* -- calls ----------------------------------------------------------------------------------------------------------- */

static struct scxl_table table(void)
{
	struct scxl_table one;
	CHECK(scxl_calls_attach(&one, shared->memory, SIZE, MARK) == SCXL_OK, "cannot attach");
	return one;
}

static void worker(void)
{
	struct scxl_table one = table();
	uint32_t length, kind;
	for (uint32_t cell = 0; cell < 2; cell++)
		if (scxl_call_take(&one, cell, 1, DEAD, &length, &kind) == SCXL_OK) {
			uint64_t value;
			memcpy(&value, scxl_call_bytes(scxl_call_at(&one, cell)), 8);
			value *= 10;
			if (scxl_call_answer(&one, cell, 1, DEAD, &value, 8, 0) == SCXL_OK)
				shared->done++;
		}
}

static int working(void)
{
	for (fatal = 1;; fatal++) {
		memset(shared, 0, sizeof *shared);
		CHECK(scxl_calls_make(shared->memory, SIZE, 2, 64) == SCXL_OK, "cannot make");
		struct scxl_table one = table();
		uint32_t length, kind;
		uint64_t number, value;
		for (uint32_t cell = 0; cell < 2; cell++) {
			value = cell + 1;
			CHECK(scxl_call_ask(&one, cell, &value, 8, 0, &number) == SCXL_OK && number == 1, "cannot ask");
		}
		bool died = dies(worker);
		int answered = 0, lost = 0, waiting = 0;
		for (int again = 0; again < 2; again++)
			for (uint32_t cell = 0; cell < 2; cell++)
				scxl_call_mend(&one, cell, DEAD);
		for (uint32_t cell = 0; cell < 2; cell++) {
			switch (scxl_call_poll(&one, cell, 1, &length, &kind)) {
			case SCXL_OK:
				memcpy(&value, scxl_call_bytes(scxl_call_at(&one, cell)), 8);
				CHECK(value == 10 * (cell + 1ull), "an answer is %llu", (unsigned long long)value);
				answered++;
				break;
			case SCXL_LOST:
				lost++;
				break;
			case SCXL_EMPTY: /* nobody has begun it: another worker may */
				CHECK(scxl_call_take(&one, cell, 1, ALIVE, &length, &kind) == SCXL_OK, "a call is stuck");
				waiting++;
				break;
			default:
				CHECK(false, "a call is corrupt");
			}
		}
		CHECK(answered >= (int)shared->done && lost <= died && answered + lost + waiting == 2, "%d answered, %d lost, %d waiting", answered, lost, waiting);
		if (!died)
			return fatal - 1;
	}
}

/* A worker that hears of calls through a queue: what it has not begun, another does. */

enum { TABLE_AT = 4096 };

static struct scxl_table asked(void)
{
	struct scxl_table one;
	CHECK(scxl_calls_attach(&one, shared->memory + TABLE_AT, SIZE - TABLE_AT, MARK) == SCXL_OK, "cannot attach");
	return one;
}

static bool run(struct scxl_table *calls, uint64_t cell, uint16_t slot)
{
	uint32_t length, kind;

	if (scxl_call_take(calls, (uint32_t)cell, 1, slot, &length, &kind) != SCXL_OK)
		return false;
	shared->seen[cell]++;
	CHECK(scxl_call_answer(calls, (uint32_t)cell, 1, slot, &cell, 8, 0) == SCXL_OK, "cannot answer");
	return true;
}

/* Run whatever is asked where one looks `ahead` of the notes, and whatever the queue tells of; count what was begun. */
static int serve(uint16_t slot, bool ahead)
{
	struct scxl_user one = user(slot);
	struct scxl_table calls = asked();
	uint32_t length, kind;
	uint64_t claimed, cell;
	int begun = 0;
	enum scxl_result result;

	for (cell = 0; ahead && cell < 3; cell++)
		begun += scxl_call_look(&calls, (uint32_t)cell, 1) == SCXL_OK && run(&calls, cell, slot);
	while ((result = scxl_queue_claim(&one, &claimed, &length, &kind)) == SCXL_OK) {
		memcpy(&cell, scxl_queue_bytes(&one, claimed), 8);
		begun += run(&calls, cell, slot);
		CHECK(scxl_queue_release(&one, claimed) == SCXL_OK, "a note is not its taker's");
	}
	CHECK(result == SCXL_EMPTY, "serving ended with %d", result);
	return begun;
}

static void server(void) { serve(DEAD, false); }

static void server_ahead(void) { serve(DEAD, true); }

static int serving(void (*what)(void))
{
	for (fatal = 1;; fatal++) {
		uint32_t length, kind;
		uint64_t number;
		int answered = 0, lost = 0;

		queue(1);
		CHECK(scxl_calls_make(shared->memory + TABLE_AT, SIZE - TABLE_AT, 3, 64) == SCXL_OK, "cannot make");
		struct scxl_table one = asked();
		for (uint64_t cell = 0; cell < 3; cell++) {
			CHECK(scxl_call_ask(&one, (uint32_t)cell, &cell, 8, 0, &number) == SCXL_OK && number == 1, "cannot ask");
			fill(ALIVE, cell, 1);
		}
		bool died = dies(what);
		mend();
		for (uint32_t cell = 0; cell < 3; cell++)
			scxl_call_mend(&one, cell, DEAD);
		serve(ALIVE, false);
		for (uint32_t cell = 0; cell < 3; cell++) {
			enum scxl_result result = scxl_call_poll(&one, cell, 1, &length, &kind);
			answered += result == SCXL_OK;
			lost += result == SCXL_LOST;
			CHECK(shared->seen[cell] <= 1, "a call was run twice");
		}
		CHECK(answered + lost == 3 && lost <= died, "%d answered, %d lost", answered, lost);
		if (!died)
			return fatal - 1;
	}
}

/* A client that dies as it asks, of a worker that looks ahead of the notes: what it asked is run once at most, and what
 * there is a note of is run. */
static void client(void)
{
	struct scxl_user one = user(DEAD);
	struct scxl_table calls = asked();
	uint64_t number;

	for (uint64_t cell = 0; cell < 3; cell++) {
		CHECK(scxl_call_ask(&calls, (uint32_t)cell, &cell, 8, 0, &number) == SCXL_OK && number == 1, "cannot ask");
		shared->done += scxl_queue_put(&one, &cell, 8, 0) == SCXL_OK;
	}
}

static int asking(void)
{
	for (fatal = 1;; fatal++) {
		queue(1);
		CHECK(scxl_calls_make(shared->memory + TABLE_AT, SIZE - TABLE_AT, 3, 64) == SCXL_OK, "cannot make");
		bool died = dies(client);
		int begun = serve(ALIVE, true);
		mend();
		begun += serve(ALIVE, true);
		for (uint32_t cell = 0; cell < 3; cell++)
			CHECK(shared->seen[cell] <= 1 && (shared->seen[cell] || cell >= shared->done), "call %u was run %d times", cell, (int)shared->seen[cell]);
		CHECK(begun == (int)shared->done || (died && begun == (int)shared->done + 1), "%d calls were run, %d were acknowledged", begun, (int)shared->done);
		still_works();
		if (!died)
			return fatal - 1;
	}
}

/* A table's calls may go through several queues: who serves one takes no call of another's. */
static void marks(void)
{
	struct scxl_table mine, other;
	uint32_t length, kind;
	uint64_t number, value = 1;

	memset(shared, 0, sizeof *shared);
	CHECK(scxl_calls_make(shared->memory, SIZE, 2, 64) == SCXL_OK, "cannot make");
	CHECK(scxl_calls_attach(&mine, shared->memory, SIZE, MARK) == SCXL_OK && scxl_calls_attach(&other, shared->memory, SIZE, MARK + 1) == SCXL_OK, "cannot attach");
	CHECK(scxl_call_look(&mine, 0, 1) == SCXL_EMPTY && scxl_call_look(&mine, 0, 2) == SCXL_STALE, "a call is there that is not");
	CHECK(scxl_call_ask(&other, 0, &value, 8, 0, &number) == SCXL_OK && number == 1, "cannot ask");
	CHECK(scxl_call_look(&mine, 0, 1) == SCXL_STALE && scxl_call_look(&other, 0, 1) == SCXL_OK, "a call is seen in another's queue");
	CHECK(scxl_call_take(&mine, 0, 1, ALIVE, &length, &kind) == SCXL_STALE, "a call is another queue's");
	CHECK(!scxl_call_undo(&mine, 0, 1) && scxl_call_undo(&other, 0, 1), "a call is taken back by another");
	CHECK(scxl_call_ask(&mine, 0, &value, 8, 0, &number) == SCXL_OK && number == 2, "its cell is not free");
	CHECK(scxl_call_take(&mine, 0, 2, ALIVE, &length, &kind) == SCXL_OK, "a call is not its queue's");
	CHECK(!scxl_call_undo(&mine, 0, 2), "what runs is taken back");
	CHECK(scxl_call_look(&mine, 0, 2) == SCXL_STALE && scxl_call_look(&mine, 0, 3) == SCXL_EMPTY, "what runs is seen as asked");
}

int main(void)
{
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	setvbuf(stdout, NULL, _IONBF, 0);
	for (int turned = 0; turned < CELLS; turned++) {
		printf("put %d\n", putting(turned));
		for (int there = 0; there <= CELLS; there++)
			printf("get %d\n", getting(turned, there));
	}
	printf("send %d\n", sending());
	printf("receive %d\n", receiving());
	printf("answer %d\n", working());
	printf("serve %d\n", serving(server));
	printf("serve ahead %d\n", serving(server_ahead));
	printf("ask %d\n", asking());
	marks();
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: a client's table of them with the queue that they go through, and a worker's side of that queue, for Python.
 *
 * What goes through the queue is a note: the client's slot, the cell in its table, and the call's number. A worker gives
 * the note up once the call is its own, so that no call is forgotten where it dies between the two.
 *
 * The two high bits of an answer's kind say how Caller hands it over, so that the kind belongs to the answer and not to
 * whichever thread has looked last. */

#define ANSWER_KEPT 0x80000000u   /* (bytes, kind, call): its cell is the client's to free, by cancel() */
#define ANSWER_MARKED 0x40000000u /* (bytes, kind) */

struct note {
	uint32_t client, cell;
	uint64_t number;
};

/* -- client -------------------------------------------------------------------------------------------------------- */

typedef struct {
	PyObject_HEAD
	Queue *queue;
	Memory *memory;
	struct scxl_table table;
	uint32_t next; /* where to look for a free cell first */
	int32_t spin;
	uint32_t kind;
} Caller;

static PyObject *caller_type, *worker_type;

static PyObject *caller_make(PyObject *type, PyObject *args)
{
	PyObject *memory;
	unsigned long long at, size;
	unsigned cells, stride;
	enum scxl_result result;
	void *there;

	(void)type;
	if (!PyArg_ParseTuple(args, "O!KKII", memory_type, &memory, &at, &size, &cells, &stride) ||
	    !(there = reach((Memory *)memory, at, size, SCXL_LINE)))
		return NULL;
	result = stride > CELL_MOST ? SCXL_TOO_LONG : scxl_calls_make(there, size, cells, stride);
	if (result != SCXL_OK)
		return fail(result);
	Py_RETURN_NONE;
}

static PyObject *caller_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *memory, *queue;
	unsigned long long at, size;
	enum scxl_result result;
	Caller *self;
	void *there;

	(void)kwargs;
	if (!PyArg_ParseTuple(args, "O!KKO!", memory_type, &memory, &at, &size, queue_type, &queue) ||
	    !(there = reach((Memory *)memory, at, size, SCXL_LINE)))
		return NULL;
	self = (Caller *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
	if (!self)
		return NULL;
	Py_INCREF(memory);
	Py_INCREF(queue);
	self->memory = (Memory *)memory;
	self->queue = (Queue *)queue;
	self->spin = SPIN_MOST;
	result = scxl_calls_attach(&self->table, there, size);
	if (result == SCXL_OK && self->table.stride > CELL_MOST)
		result = SCXL_CORRUPT;
	if (result == SCXL_OK && self->queue->user.stride < SCXL_CELL_HEADER + sizeof(struct note))
		result = SCXL_TOO_LONG;
	if (result != SCXL_OK) {
		Py_DECREF(self);
		return fail(result);
	}
	return (PyObject *)self;
}

static void caller_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	Py_XDECREF((PyObject *)((Caller *)self)->memory);
	Py_XDECREF((PyObject *)((Caller *)self)->queue);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

/* The lines that the next request is to be written to come from the worker's processor: ask for them ahead. */
static inline void caller_prepare(const Caller *self)
{
	const uint8_t *call = (const uint8_t *)scxl_call_at(&self->table, self->next);

	scxl_soon(call);
	scxl_soon(call + SCXL_LINE * (self->table.stride > SCXL_LINE));
	scxl_soon(scxl_cell_of(&self->queue->user, scxl_peek(&self->queue->user.queue->tail)));
}

/* Ask in a free cell, and send the note. */
static enum scxl_result caller_ask(Caller *self, const void *bytes, uint32_t length, uint32_t kind, struct note *note, int64_t deadline, bool *raised_)
{
	enum scxl_result result = SCXL_FULL;
	struct queue_step step = {.self = self->queue, .bytes = note, .length = sizeof *note};
	int put;

	*raised_ = false;
	scxl_soon(scxl_cell_of(&self->queue->user, scxl_peek(&self->queue->user.queue->tail)));
	note->client = self->queue->user.slot;
	for (uint32_t i = 0; i < self->table.count && result == SCXL_FULL; i++) {
		note->cell = self->next;
		self->next = self->next + 1 < self->table.count ? self->next + 1 : 0;
		result = scxl_call_ask(&self->table, note->cell, bytes, length, kind, &note->number);
	}
	if (result != SCXL_OK)
		return result;
	put = queue_try_put(&step);
	if (put == SCXL_FULL) {
		put = queue_wait(queue_try_put, &step, &self->queue->user.queue->producers, deadline);
		*raised_ = put < 0;
	}
	if (put != SCXL_OK)
		scxl_call_free(&self->table, note->cell, note->number);
	else
		wake(self->queue->memory, &self->queue->user.queue->consumers);
	return (enum scxl_result)put;
}

struct call_poll {
	struct scxl_table *table;
	struct note note;
	uint32_t length, kind;
};

static enum scxl_result call_try(void *what)
{
	struct call_poll *poll = what;
	return scxl_call_poll(poll->table, poll->note.cell, poll->note.number, &poll->length, &poll->kind);
}

static int caller_wait(Caller *self, struct call_poll *poll, int64_t deadline)
{
	int result = call_try(poll);

	if (result == SCXL_EMPTY)
		result = wait_for(call_try, poll, self->memory, &self->table.calls->client, deadline, &self->spin);
	return result;
}

/* An answer that is there, as its kind says that it is handed over; its cell is free then, or the client's to free. */
static PyObject *caller_take(Caller *self, const struct call_poll *poll)
{
	PyObject *bytes = PyBytes_FromStringAndSize((char *)scxl_call_bytes(scxl_call_at(&self->table, poll->note.cell)), poll->length);
	bool kept = false;

	self->kind = poll->kind;
	if (bytes && poll->kind & ANSWER_KEPT) {
		bytes = Py_BuildValue("NI(IK)", bytes, poll->kind, poll->note.cell, poll->note.number);
		kept = bytes != NULL;
	} else if (bytes && poll->kind & ANSWER_MARKED) {
		bytes = Py_BuildValue("NI", bytes, poll->kind);
	}
	if (!kept)
		scxl_call_free(&self->table, poll->note.cell, poll->note.number);
	caller_prepare(self);
	return bytes;
}

static PyObject *caller_answer(Caller *self, struct call_poll *poll, int64_t deadline)
{
	int result = caller_wait(self, poll, deadline);

	if (result == SCXL_OK)
		return caller_take(self, poll);
	if (result >= 0)
		fail(result);
	if (result != SCXL_EMPTY && result >= 0)
		scxl_call_free(&self->table, poll->note.cell, poll->note.number);
	return NULL;
}

static PyObject *caller_call(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	Caller *self = (Caller *)object;
	struct call_poll poll = {.table = &self->table};
	PyObject *timeout, *bytes;
	struct data data;
	uint32_t kind;
	int64_t deadline;
	bool raised_;
	int result;

	if (!sent("call", args, count, &data, &kind, &timeout))
		return NULL;
	deadline = deadline_of(timeout);
	if (deadline < 0) {
		data_release(&data);
		return NULL;
	}
	result = caller_ask(self, data.bytes, data.length > CELL_MOST ? CELL_MOST : (uint32_t)data.length, kind, &poll.note, deadline, &raised_);
	data_release(&data);
	if (raised_)
		return NULL;
	if (result != SCXL_OK)
		return fail(result);
	bytes = caller_answer(self, &poll, deadline);
	if (!bytes) /* a timeout, or a signal's: nobody waits for it any more */
		scxl_call_free(&self->table, poll.note.cell, poll.note.number);
	return bytes;
}

static PyObject *caller_start(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	Caller *self = (Caller *)object;
	struct note note;
	PyObject *timeout;
	struct data data;
	uint32_t kind;
	int64_t deadline;
	bool raised_;
	int result;

	if (!sent("start", args, count, &data, &kind, &timeout))
		return NULL;
	deadline = deadline_of(timeout);
	result = deadline < 0 ? -1 : (int)caller_ask(self, data.bytes, data.length > CELL_MOST ? CELL_MOST : (uint32_t)data.length, kind, &note, deadline, &raised_);
	data_release(&data);
	if (deadline < 0 || raised_)
		return NULL;
	if (result != SCXL_OK)
		return fail(result);
	return Py_BuildValue("IK", note.cell, note.number);
}

static int caller_named(Caller *self, struct note *note)
{
	if (note->cell < self->table.count)
		return 1;
	PyErr_Format(PyExc_IndexError, "call %u: there are %u", note->cell, self->table.count);
	return 0;
}

static PyObject *caller_result(PyObject *object, PyObject *args)
{
	Caller *self = (Caller *)object;
	struct call_poll poll = {.table = &self->table};
	PyObject *timeout = NULL;
	int64_t deadline;

	if (!PyArg_ParseTuple(args, "(IK)|O", &poll.note.cell, &poll.note.number, &timeout) || !caller_named(self, &poll.note))
		return NULL;
	deadline = deadline_of(timeout);
	return deadline < 0 ? NULL : caller_answer(self, &poll, deadline);
}

static PyObject *caller_cancel(PyObject *object, PyObject *args)
{
	Caller *self = (Caller *)object;
	struct note note;

	if (!PyArg_ParseTuple(args, "(IK)", &note.cell, &note.number) || !caller_named(self, &note))
		return NULL;
	return PyBool_FromLong(scxl_call_free(&self->table, note.cell, note.number) != SCXL_STALE);
}

/* A worker has died: calls that it ran are lost; their clients are woken. */
static PyObject *caller_mend(PyObject *object, PyObject *args)
{
	Caller *self = (Caller *)object;
	unsigned short dead;
	long found = 0;

	if (!PyArg_ParseTuple(args, "H", &dead))
		return NULL;
	for (uint32_t i = 0; i < self->table.count; i++)
		found += scxl_call_mend(&self->table, i, dead);
	wake(self->memory, &self->table.calls->client);
	return PyLong_FromLong(found);
}

static PyMethodDef caller_methods[] = {
	{"make", caller_make, METH_VARARGS | METH_STATIC, "make(memory, offset, size, cells, stride): make a table of that many calls."},
	{"call", FAST(caller_call), METH_FASTCALL, "call(data, kind=0, timeout=None): ask, and wait for the answer; its kind is in `kind`."},
	{"start", FAST(caller_start), METH_FASTCALL, "start(data, kind=0, timeout=None): ask; returns what names the call."},
	{"result", caller_result, METH_VARARGS, "result(call, timeout=None): wait for the answer of a call that was started."},
	{"cancel", caller_cancel, METH_VARARGS, "cancel(call): be done with a call; whether there was such a one."},
	{"mend", caller_mend, METH_VARARGS, "mend(slot): see to the calls that a dead worker ran; how many there were."},
	{NULL, NULL, 0, NULL},
};

static PyMemberDef caller_members[] = {
	{"kind", T_UINT, offsetof(Caller, kind), READONLY, "The kind of the last answer."},
	{NULL, 0, 0, 0, NULL},
};

static PyType_Slot caller_slots[] = {
	{Py_tp_doc, "Caller(memory, offset, size, queue): a client's calls to whoever takes from the queue. One thread at a time."},
	{Py_tp_new, caller_new},
	{Py_tp_dealloc, caller_dealloc},
	{Py_tp_methods, caller_methods},
	{Py_tp_members, caller_members},
	{0, NULL},
};
static PyType_Spec caller_spec = {"softcxl.pool._native.Caller", sizeof(Caller), 0, Py_TPFLAGS_DEFAULT, caller_slots};

/* -- worker -------------------------------------------------------------------------------------------------------- */

typedef struct {
	PyObject_HEAD
	Queue *queue;
	Memory *memory;
	struct scxl_table *tables; /* by client's slot; calls is NULL where none is known */
	uint32_t count, kind;
	int32_t spin;
	struct note note;
	uint64_t claimed; /* the note's ticket in the queue */
	bool holds;       /* the note, which has not been given up yet */
} Worker;

static PyObject *worker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *memory, *queue;
	Worker *self;

	(void)kwargs;
	if (!PyArg_ParseTuple(args, "O!O!", memory_type, &memory, queue_type, &queue))
		return NULL;
	if (((Queue *)queue)->user.stride < SCXL_CELL_HEADER + sizeof(struct note))
		return fail(SCXL_TOO_LONG);
	self = (Worker *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
	if (!self)
		return NULL;
	Py_INCREF(memory);
	Py_INCREF(queue);
	self->memory = (Memory *)memory;
	self->queue = (Queue *)queue;
	self->spin = SPIN_MOST;
	return (PyObject *)self;
}

static void worker_release(Worker *self)
{
	if (self->holds) {
		self->holds = false;
		scxl_queue_release(&self->queue->user, self->claimed);
		wake(self->queue->memory, &self->queue->user.queue->producers);
	}
}

/* Who stops before he has taken the call leaves the note to others, as one who dies does. */
static void worker_give_back(Worker *self)
{
	struct scxl_user *user = &self->queue->user;

	self->holds = false;
	scxl_queue_mend(user, (uint32_t)(self->claimed & user->mask), user->slot);
	wake(self->queue->memory, &user->queue->consumers);
}

static void worker_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	if (((Worker *)self)->holds && !queue_left(((Worker *)self)->queue))
		worker_give_back((Worker *)self);
	PyMem_Free(((Worker *)self)->tables);
	Py_XDECREF((PyObject *)((Worker *)self)->memory);
	Py_XDECREF((PyObject *)((Worker *)self)->queue);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

static PyObject *worker_learn(PyObject *object, PyObject *args)
{
	Worker *self = (Worker *)object;
	unsigned short client;
	unsigned long long at, size;
	struct scxl_table table;
	enum scxl_result result;
	void *there;

	if (!PyArg_ParseTuple(args, "HKK", &client, &at, &size) || !(there = reach(self->memory, at, size, SCXL_LINE)))
		return NULL;
	result = scxl_calls_attach(&table, there, size);
	if (result == SCXL_OK && table.stride > CELL_MOST)
		result = SCXL_CORRUPT;
	if (result != SCXL_OK)
		return fail(result);
	if (client >= self->count) {
		uint32_t count = (client | 63u) + 1;
		struct scxl_table *more = PyMem_Realloc(self->tables, count * sizeof *more);
		if (!more)
			return PyErr_NoMemory();
		memset(more + self->count, 0, (count - self->count) * sizeof *more);
		self->tables = more;
		self->count = count;
	}
	self->tables[client] = table;
	Py_RETURN_NONE;
}

static PyObject *worker_forget(PyObject *object, PyObject *args)
{
	Worker *self = (Worker *)object;
	unsigned short client;

	if (!PyArg_ParseTuple(args, "H", &client))
		return NULL;
	if (client < self->count)
		self->tables[client].calls = NULL;
	Py_RETURN_NONE;
}

static PyObject *call_of(const struct note *note)
{
	return Py_BuildValue("IIK", note->client, note->cell, note->number);
}

/* The request of the call that the note is of, or NULL: with an exception, or, where it is not there any more, without. */
static PyObject *worker_take(Worker *self)
{
	struct note *note = &self->note;
	struct scxl_table *table;
	uint32_t length;

	if (note->client >= self->count || !self->tables[note->client].calls) {
		PyObject *call = call_of(note);
		if (call)
			PyErr_SetObject(PyExc_KeyError, call);
		Py_XDECREF(call);
		return NULL;
	}
	table = &self->tables[note->client];
	if (scxl_call_take(table, note->cell, note->number, self->queue->user.slot, &length, &self->kind) != SCXL_OK) {
		worker_release(self);
		return NULL;
	}
	worker_release(self);
	return PyBytes_FromStringAndSize((char *)scxl_call_bytes(scxl_call_at(table, note->cell)), length);
}

struct note_claim {
	Queue *queue;
	uint64_t claimed;
	uint32_t length, kind;
};

static enum scxl_result note_try_claim(void *what)
{
	struct note_claim *claim = what;
	return queue_left(claim->queue) ? SCXL_CLOSED : scxl_queue_claim(&claim->queue->user, &claim->claimed, &claim->length, &claim->kind);
}

/* The next call's request, or NULL with an exception. */
static PyObject *worker_request(Worker *self, PyObject *timeout)
{
	struct note_claim claim = {.queue = self->queue};
	int64_t deadline = deadline_of(timeout);
	PyObject *bytes;
	int result;

	if (deadline < 0)
		return NULL;
	for (;;) {
		worker_release(self);
		result = note_try_claim(&claim);
		if (result == SCXL_EMPTY)
			result = wait_for(note_try_claim, &claim, self->queue->memory, &self->queue->user.queue->consumers, deadline, &self->spin);
		if (result < 0)
			return NULL;
		if (result != SCXL_OK)
			return fail(result);
		self->claimed = claim.claimed;
		self->holds = true;
		if (claim.length != sizeof self->note)
			continue; /* no client of ours writes such a one */
		memcpy(&self->note, scxl_queue_bytes(&self->queue->user, claim.claimed), sizeof self->note);
		bytes = worker_take(self);
		if (bytes || PyErr_Occurred())
			return bytes;
	}
}

static PyObject *worker_next(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	return counted("next", count, 0, 1) ? worker_request((Worker *)object, count ? args[0] : NULL) : NULL;
}

/* Take a call by name, once its client's table is known. None: it is not there any more. */
static PyObject *worker_take_named(PyObject *object, PyObject *args)
{
	Worker *self = (Worker *)object;
	PyObject *bytes;

	if (!PyArg_ParseTuple(args, "(IIK)", &self->note.client, &self->note.cell, &self->note.number))
		return NULL;
	bytes = worker_take(self);
	if (bytes || PyErr_Occurred())
		return bytes;
	Py_RETURN_NONE;
}

/* SCXL_OK: somebody waits for it. */
static enum scxl_result worker_put(Worker *self, const struct note *note, const void *bytes, Py_ssize_t length, uint32_t kind)
{
	struct scxl_table *table = &self->tables[note->client];
	enum scxl_result result;

	if (note->client >= self->count || !table->calls || note->cell >= table->count)
		return SCXL_STALE;
	result = scxl_call_answer(table, note->cell, note->number, self->queue->user.slot, bytes, length > CELL_MOST ? CELL_MOST : (uint32_t)length, kind);
	if (result == SCXL_OK)
		wake(self->memory, &table->calls->client);
	return result;
}

static PyObject *worker_answer(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	Worker *self = (Worker *)object;
	struct note note = self->note;
	enum scxl_result result;
	struct data data;
	uint32_t kind;
	PyObject *timeout; /* where it has none, it may have a call */

	if (count > 2 && !PyArg_Parse(args[2], "(IIK)", &note.client, &note.cell, &note.number))
		return NULL;
	if (!sent("answer", args, count, &data, &kind, &timeout))
		return NULL;
	result = worker_put(self, &note, data.bytes, data.length, kind);
	data_release(&data);
	if (result == SCXL_TOO_LONG)
		return fail(result);
	return PyBool_FromLong(result == SCXL_OK);
}

static PyObject *worker_current(PyObject *object, void *closure)
{
	(void)closure;
	return call_of(&((Worker *)object)->note);
}

static PyObject *worker_serve(PyObject *object, PyObject *const *args, Py_ssize_t count);

static PyMethodDef worker_methods[] = {
	{"serve", FAST(worker_serve), METH_FASTCALL,
	 "serve(functions, encode, timeout=None): answer calls by themselves, for a while, by what is in functions: number to (function,\n"
	 "decode of its positional arguments or None, whether it takes one argument of bytes as it is). Raises as next does.\n"
	 "None: call it again. (what, value): REQUEST, of another function or kind, RESULT, of no simple kind, or FAILURE, an\n"
	 "exception: the caller is to answer it."},
	{"learn", worker_learn, METH_VARARGS, "learn(client, offset, size): where the calls of a client's slot are."},
	{"forget", worker_forget, METH_VARARGS, "forget(client): a client has gone."},
	{"next", FAST(worker_next), METH_FASTCALL, "next(timeout=None): take the next call; returns its request. KeyError(call): of a client that is not known: learn, then take."},
	{"take", worker_take_named, METH_VARARGS, "take(call): take that call; None where it was given up."},
	{"answer", FAST(worker_answer), METH_FASTCALL, "answer(data, kind=0, call=current): answer a call; whether somebody waits for it."},
	{NULL, NULL, 0, NULL},
};

static PyMemberDef worker_members[] = {
	{"kind", T_UINT, offsetof(Worker, kind), READONLY, "The kind of the last request."},
	{NULL, 0, 0, 0, NULL},
};

static PyGetSetDef worker_getters[] = {
	{"current", worker_current, NULL, "The last call that was taken: (client, cell, number).", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot worker_slots[] = {
	{Py_tp_doc, "Worker(memory, queue): takes calls from a queue, as the user that the queue's slot says. One thread at a time."},
	{Py_tp_new, worker_new},
	{Py_tp_dealloc, worker_dealloc},
	{Py_tp_methods, worker_methods},
	{Py_tp_members, worker_members},
	{Py_tp_getset, worker_getters},
	{0, NULL},
};
static PyType_Spec worker_spec = {"softcxl.pool._native.Worker", sizeof(Worker), 0, Py_TPFLAGS_DEFAULT, worker_slots};

/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: a client's table of them with the queue that they go through, for Python; worker.h has the other side.
 *
 * What goes through the queue is a note: the client's slot, the cell in its table, and the call's number. A worker gives
 * the note up once the call is its own, so that no call is forgotten where it dies between the two.
 *
 * The two high bits of an answer's kind say how Caller hands it over, so that the kind belongs to the answer and not to
 * whichever thread has looked last. */

#define ANSWER_KEPT 0x80000000u   /* (bytes, kind, call): its cell is the client's to free, by cancel() */
#define ANSWER_MARKED 0x40000000u /* (bytes, kind) */

typedef struct {
	PyObject_HEAD
	Queue *queue;
	Memory *memory;
	struct scxl_table table;
	uint32_t next; /* where to look for a free cell first */
	int32_t spin;
	uint32_t kind;
} Caller;

static PyObject *caller_type;

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
	result = scxl_calls_attach(&self->table, there, size, self->queue->user.mark);
	if (result == SCXL_OK && self->table.stride > CELL_MOST)
		result = SCXL_CORRUPT;
	if (result == SCXL_OK && self->queue->user.stride < SCXL_CELL_HEADER + sizeof(struct scxl_note))
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

struct note_put {
	struct queue_step queue; /* first: it is waited with */
	const struct scxl_table *table;
	const struct scxl_note *note;
};

/* Who waits for room in the queue need not any more once a worker has taken the call ahead of the note. */
static enum scxl_result note_try_put(void *what)
{
	struct note_put *put = what;

	return scxl_call_look(put->table, put->note->cell, put->note->number) == SCXL_OK ? queue_try_put(&put->queue) : SCXL_OK;
}

/* Ask in a free cell, and send the note. `until`: how long to wait for room; NULL: not at all. */
static enum scxl_result caller_ask(Caller *self, const void *bytes, uint32_t length, uint32_t kind, struct scxl_note *note, struct until *until, bool *raised_)
{
	enum scxl_result result = SCXL_FULL;
	struct note_put step = {{.self = self->queue, .bytes = note, .length = sizeof *note}, &self->table, note};
	int put;

	*raised_ = false;
	if (queue_left(self->queue))
		return SCXL_CLOSED; /* before somebody may see it in its cell */
	scxl_soon(scxl_cell_of(&self->queue->user, scxl_peek(&self->queue->user.queue->tail)));
	note->client = self->queue->user.slot;
	for (uint32_t i = 0; i < self->table.count && result == SCXL_FULL; i++) {
		note->cell = self->next;
		self->next = self->next + 1 < self->table.count ? self->next + 1 : 0;
		result = scxl_call_ask(&self->table, note->cell, bytes, length, kind, &note->number);
	}
	if (result != SCXL_OK)
		return result;
	put = queue_try_put(&step.queue);
	if (put == SCXL_FULL && until) {
		put = queue_wait(note_try_put, &step.queue, &self->queue->user.queue->producers, deadline_at(until));
		*raised_ = put < 0;
	}
	if (put == SCXL_OK)
		wake(self->queue->memory, &self->queue->user.queue->consumers);
	else if (*raised_)
		scxl_call_free(&self->table, note->cell, note->number);
	else if (!scxl_call_undo(&self->table, note->cell, note->number))
		put = SCXL_OK; /* a worker has it, note or not */
	return (enum scxl_result)put;
}

struct call_poll {
	struct scxl_table *table;
	struct scxl_note note;
	uint32_t length, kind;
};

static enum scxl_result call_try(void *what)
{
	struct call_poll *poll = what;
	return scxl_call_poll(poll->table, poll->note.cell, poll->note.number, &poll->length, &poll->kind);
}

/* No answer comes at once, and who looks for one too early takes the line from the worker that writes it. */
static inline void caller_rest(void)
{
	for (int i = 0; i < 6; i++)
		relax();
}

static int caller_wait(Caller *self, struct call_poll *poll, struct until *until)
{
	int result = call_try(poll);

	if (result == SCXL_EMPTY && self->spin && until->span)
		result = looked_for(call_try, poll);
	if (result == SCXL_EMPTY)
		result = wait_for(call_try, poll, self->memory, &self->table.calls->client, deadline_at(until), &self->spin);
	return result;
}

/* Who asks next does so in the same cell: there the worker looks for it. */
static inline void caller_free(Caller *self, const struct scxl_note *note)
{
	scxl_call_free(&self->table, note->cell, note->number);
	self->next = note->cell;
	caller_prepare(self);
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
		caller_free(self, &poll->note);
	return bytes;
}

static PyObject *caller_answer(Caller *self, struct call_poll *poll, struct until *until)
{
	int result = caller_wait(self, poll, until);

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
	struct until until = {0};
	uint32_t kind;
	bool raised_;
	int result;

	if (!sent("call", args, count, &data, &kind, &timeout))
		return NULL;
	until.span = span_of(timeout);
	if (until.span < 0) {
		data_release(&data);
		return NULL;
	}
	result = caller_ask(self, data.bytes, data.length > CELL_MOST ? CELL_MOST : (uint32_t)data.length, kind, &poll.note, &until, &raised_);
	data_release(&data);
	if (raised_)
		return NULL;
	if (result != SCXL_OK)
		return fail(result);
	caller_rest();
	bytes = caller_answer(self, &poll, &until);
	if (!bytes) /* a timeout, or a signal's: nobody waits for it any more */
		scxl_call_free(&self->table, poll.note.cell, poll.note.number);
	return bytes;
}

static PyObject *caller_start(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	Caller *self = (Caller *)object;
	struct scxl_note note;
	PyObject *timeout;
	struct data data;
	struct until until = {0};
	uint32_t kind;
	bool raised_;
	int result;

	if (!sent("start", args, count, &data, &kind, &timeout))
		return NULL;
	until.span = span_of(timeout);
	result = until.span < 0 ? -1 : (int)caller_ask(self, data.bytes, data.length > CELL_MOST ? CELL_MOST : (uint32_t)data.length, kind, &note, &until, &raised_);
	data_release(&data);
	if (until.span < 0 || raised_)
		return NULL;
	if (result != SCXL_OK)
		return fail(result);
	scxl_call_begun(&self->queue->user);
	return Py_BuildValue("IK", note.cell, note.number);
}

static int caller_named(Caller *self, struct scxl_note *note)
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
	struct until until = {0};

	if (!PyArg_ParseTuple(args, "(IK)|O", &poll.note.cell, &poll.note.number, &timeout) || !caller_named(self, &poll.note))
		return NULL;
	until.span = span_of(timeout);
	return until.span < 0 ? NULL : caller_answer(self, &poll, &until);
}

static PyObject *caller_cancel(PyObject *object, PyObject *args)
{
	Caller *self = (Caller *)object;
	struct scxl_note note;

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

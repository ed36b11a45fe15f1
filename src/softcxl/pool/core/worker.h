/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's side of the queue that calls go through, for Python: see calls.h. */

static PyObject *worker_type;

typedef struct {
	PyObject_HEAD
	Queue *queue;
	Memory *memory;
	struct scxl_table *tables; /* by client's slot; calls is NULL where none is known */
	uint32_t count, kind;
	int32_t spin;
	struct scxl_worker core;
} Worker;

static PyObject *worker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *memory, *queue;
	Worker *self;

	(void)kwargs;
	if (!PyArg_ParseTuple(args, "O!O!", memory_type, &memory, queue_type, &queue))
		return NULL;
	if (((Queue *)queue)->user.stride < SCXL_CELL_HEADER + sizeof(struct scxl_note))
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
	if (scxl_worker_release(&self->core, &self->queue->user))
		wake(self->queue->memory, &self->queue->user.queue->producers);
}

/* Who stops before he has taken the call leaves the note to others, as one who dies does. */
static void worker_give_back(Worker *self)
{
	struct scxl_user *user = &self->queue->user;

	self->core.holds = false;
	scxl_queue_mend(user, (uint32_t)(self->core.claimed & user->mask), user->slot);
	wake(self->queue->memory, &user->queue->consumers);
}

static void worker_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	if (((Worker *)self)->core.holds && !queue_left(((Worker *)self)->queue))
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
	result = scxl_calls_attach(&table, there, size, self->queue->user.mark);
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
	scxl_worker_look_away(&self->core, client);
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
	scxl_worker_look_away(&self->core, client);
	Py_RETURN_NONE;
}

static PyObject *call_of(const struct scxl_note *note)
{
	return Py_BuildValue("IIK", note->client, note->cell, note->number);
}

/* The request of the call that the note is of, or NULL: with an exception, or, where it is not there any more, without. */
static PyObject *worker_take(Worker *self, bool ahead)
{
	struct scxl_note *note = &self->core.note;
	struct scxl_table *table;
	enum scxl_result result;
	uint32_t length;

	if (note->client >= self->count || !self->tables[note->client].calls) {
		PyObject *call = call_of(note);
		if (call)
			PyErr_SetObject(PyExc_KeyError, call);
		Py_XDECREF(call);
		return NULL;
	}
	table = &self->tables[note->client];
	result = scxl_worker_take(&self->core, &self->queue->user, table, ahead, &length, &self->kind);
	worker_release(self);
	if (result != SCXL_OK)
		return NULL;
	return PyBytes_FromStringAndSize((char *)scxl_call_bytes(scxl_call_at(table, note->cell)), length);
}

struct worker_search {
	Worker *self;
	struct scxl_found found;
};

static enum scxl_result worker_try_claim(void *what)
{
	struct worker_search *search = what;
	struct scxl_found *found = &search->found;
	Queue *queue = search->self->queue;

	return queue_left(queue) ? SCXL_CLOSED : scxl_queue_claim(&queue->user, &found->claimed, &found->length, &found->kind);
}

static enum scxl_result worker_try_find(void *what)
{
	struct worker_search *search = what;
	Queue *queue = search->self->queue;

	return queue_left(queue) ? SCXL_CLOSED : scxl_worker_find(&search->self->core, &queue->user, &search->found);
}

/* The next call's request, or NULL with an exception. */
static PyObject *worker_request(Worker *self, PyObject *timeout)
{
	struct worker_search search = {.self = self};
	struct until until = {.span = span_of(timeout)};
	PyObject *bytes;
	int result;

	if (until.span < 0)
		return NULL;
	for (;;) {
		worker_release(self);
		search.found.ahead = false;
		search.found.length = 0;
		result = worker_try_claim(&search); /* whoever has been there for longer goes first */
		if (result == SCXL_EMPTY && self->spin && until.span)
			result = looked_for(worker_try_find, &search);
		if (result == SCXL_EMPTY)
			result = wait_for(worker_try_find, &search, self->queue->memory, &self->queue->user.queue->consumers, deadline_at(&until), &self->spin);
		if (result < 0)
			return NULL;
		if (result == SCXL_CORRUPT && search.found.length) { /* that note alone cannot be, and is not there any more */
			wake(self->queue->memory, &self->queue->user.queue->producers);
			continue;
		}
		if (result != SCXL_OK)
			return fail(result);
		if (!scxl_worker_has(&self->core, &self->queue->user, &search.found))
			continue;
		bytes = worker_take(self, search.found.ahead);
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

	if (!PyArg_ParseTuple(args, "(IIK)", &self->core.note.client, &self->core.note.cell, &self->core.note.number))
		return NULL;
	bytes = worker_take(self, false);
	if (bytes || PyErr_Occurred())
		return bytes;
	Py_RETURN_NONE;
}

/* SCXL_OK: somebody waits for it. */
static enum scxl_result worker_put(Worker *self, const struct scxl_note *note, const void *bytes, Py_ssize_t length, uint32_t kind)
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
	struct scxl_note note = self->core.note;
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
	return call_of(&((Worker *)object)->core.note);
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

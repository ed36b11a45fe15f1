/* SPDX-License-Identifier: Apache-2.0 */
/* A queue as one of its users has it, for Python. */

#define CELL_MOST 65536

typedef struct {
	PyObject_HEAD
	Memory *memory;
	Life *life; /* of whose part it is; NULL: that stays */
	struct scxl_user user;
	int32_t spin;
	uint32_t kind;
	uint32_t waiting; /* threads that wait here; changed with the interpreter's lock */
	bool left;        /* its memory may be another's: nothing is put or got any more */
} Queue;

static PyObject *queue_type;

static PyObject *queue_make(PyObject *type, PyObject *args)
{
	PyObject *memory;
	unsigned long long at, size;
	unsigned cells, stride;
	unsigned short mark = 0;
	enum scxl_result result;
	void *there;

	(void)type;
	if (!PyArg_ParseTuple(args, "O!KKII|H", memory_type, &memory, &at, &size, &cells, &stride, &mark) ||
	    !(there = reach((Memory *)memory, at, size, SCXL_LINE)))
		return NULL;
	result = stride > CELL_MOST ? SCXL_TOO_LONG : scxl_queue_make(there, size, cells, stride, mark);
	if (result != SCXL_OK)
		return fail(result);
	Py_RETURN_NONE;
}

static PyObject *queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *memory, *life = NULL;
	unsigned long long at, size;
	unsigned short slot;
	enum scxl_result result;
	Queue *self;
	void *there;

	(void)kwargs;
	if (!PyArg_ParseTuple(args, "O!KKH|O!", memory_type, &memory, &at, &size, &slot, life_type, &life) || !(there = reach((Memory *)memory, at, size, SCXL_LINE)))
		return NULL;
	self = (Queue *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
	if (!self)
		return NULL;
	Py_INCREF(memory);
	self->memory = (Memory *)memory;
	self->life = (Life *)Py_XNewRef(life);
	self->spin = SPIN_MOST;
	result = scxl_queue_attach(&self->user, there, size, slot);
	if (result == SCXL_OK && self->user.stride > CELL_MOST)
		result = SCXL_CORRUPT;
	if (result != SCXL_OK) {
		Py_DECREF(self);
		return fail(result);
	}
	return (PyObject *)self;
}

static void queue_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	Py_XDECREF((PyObject *)((Queue *)self)->life);
	Py_XDECREF((PyObject *)((Queue *)self)->memory);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

struct queue_step {
	Queue *self;
	const void *bytes;
	void *to;
	uint32_t room, length, kind;
};

static inline bool queue_left(const Queue *self)
{
	return __atomic_load_n(&self->left, __ATOMIC_RELAXED) || (self->life && !lives(self->life));
}

static enum scxl_result queue_try_put(void *what)
{
	struct queue_step *step = what;
	return queue_left(step->self) ? SCXL_CLOSED : scxl_queue_put(&step->self->user, step->bytes, step->length, step->kind);
}

static enum scxl_result queue_try_get(void *what)
{
	struct queue_step *step = what;
	return queue_left(step->self) ? SCXL_CLOSED : scxl_queue_get(&step->self->user, step->to, step->room, &step->length, &step->kind);
}

static int queue_wait(attempt try, struct queue_step *step, struct scxl_sleepers *sleepers, int64_t deadline)
{
	Queue *self = step->self;
	int result;

	self->waiting++;
	result = wait_for(try, step, self->memory, sleepers, deadline, &self->spin);
	self->waiting--;
	return result;
}

/* At once: a result. */
static int queue_put_now(Queue *self, const struct data *data, uint32_t kind)
{
	struct queue_step step = {.self = self, .bytes = data->bytes, .kind = kind};
	int result;

	step.length = data->length > CELL_MOST ? CELL_MOST : (uint32_t)data->length;
	result = queue_try_put(&step);
	if (result == SCXL_OK)
		wake(self->memory, &self->user.queue->consumers);
	return result;
}

static PyObject *queue_put(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	Queue *self = (Queue *)object;
	struct queue_step step = {.self = self};
	PyObject *timeout;
	struct data data;
	int64_t deadline;
	int result;

	if (!sent("put", args, count, &data, &step.kind, &timeout))
		return NULL;
	result = queue_put_now(self, &data, step.kind);
	if (result == SCXL_FULL) {
		step.bytes = data.bytes;
		step.length = (uint32_t)data.length;
		deadline = deadline_of(timeout);
		result = deadline < 0 ? -1 : queue_wait(queue_try_put, &step, &self->user.queue->producers, deadline);
		if (result == SCXL_OK)
			wake(self->memory, &self->user.queue->consumers);
	}
	data_release(&data);
	if (result < 0)
		return NULL;
	if (result != SCXL_OK)
		return fail(result);
	Py_RETURN_NONE;
}

/* The next record, waited for: a result, or -1 with an exception. Its kind is in the queue, too. */
static int queue_get_one(Queue *self, PyObject *timeout, PyObject **bytes, uint32_t *kind)
{
	uint8_t cell[CELL_MOST];
	struct queue_step step = {.self = self, .to = cell, .room = sizeof cell};
	int64_t deadline;
	int result;

	*bytes = NULL;
	result = queue_try_get(&step);
	if (result == SCXL_EMPTY) {
		deadline = deadline_of(timeout);
		result = deadline < 0 ? -1 : queue_wait(queue_try_get, &step, &self->user.queue->consumers, deadline);
	}
	if (result != SCXL_OK)
		return result;
	wake(self->memory, &self->user.queue->producers);
	self->kind = *kind = step.kind;
	*bytes = PyBytes_FromStringAndSize((char *)cell, step.length);
	return *bytes ? SCXL_OK : -1;
}

static PyObject *queue_bytes(Queue *self, const char *name, PyObject *const *args, Py_ssize_t count, uint32_t *kind)
{
	PyObject *bytes;
	int result = counted(name, count, 0, 1) ? queue_get_one(self, count ? args[0] : NULL, &bytes, kind) : -1;

	if (result > SCXL_OK)
		return fail(result);
	return result < 0 ? NULL : bytes;
}

static PyObject *queue_get(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	uint32_t kind;
	return queue_bytes((Queue *)object, "get", args, count, &kind);
}

static PyObject *queue_take(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	uint32_t kind;
	PyObject *bytes = queue_bytes((Queue *)object, "take", args, count, &kind);
	return bytes ? Py_BuildValue("NI", bytes, kind) : NULL;
}

/* See to what who has died left behind. */
static PyObject *queue_mend(PyObject *object, PyObject *args)
{
	Queue *self = (Queue *)object;
	unsigned short dead;
	long found = 0;

	if (!PyArg_ParseTuple(args, "H", &dead))
		return NULL;
	for (uint64_t i = 0; i <= self->user.mask; i++)
		found += scxl_queue_mend(&self->user, (uint32_t)i, dead);
	wake(self->memory, &self->user.queue->consumers);
	wake(self->memory, &self->user.queue->producers);
	return PyLong_FromLong(found);
}

static PyObject *queue_close(PyObject *object, PyObject *args)
{
	Queue *self = (Queue *)object;
	int consumers = 0;

	if (!PyArg_ParseTuple(args, "|p", &consumers))
		return NULL;
	scxl_queue_close(self->user.queue, consumers);
	wake(self->memory, &self->user.queue->consumers);
	wake(self->memory, &self->user.queue->producers);
	Py_RETURN_NONE;
}

/* This user takes part no more: what its threads wait for is CLOSED, and they have gone when this returns. But for those
 * that run a signal's handler, which may be what called this: they see it when they come back. */
static PyObject *queue_leave(PyObject *object, PyObject *nothing)
{
	Queue *self = (Queue *)object;
	const struct timespec pause = {0, 50000};
	int64_t most = now() + 2 * SLICE;

	(void)nothing;
	__atomic_store_n(&self->left, true, __ATOMIC_SEQ_CST);
	while (self->waiting && now() < most) {
		wake(self->memory, &self->user.queue->consumers);
		wake(self->memory, &self->user.queue->producers);
		Py_BEGIN_ALLOW_THREADS
		nanosleep(&pause, NULL);
		Py_END_ALLOW_THREADS
	}
	Py_RETURN_NONE;
}

static PyMethodDef queue_methods[] = {
	{"make", queue_make, METH_VARARGS | METH_STATIC, "make(memory, offset, size, cells, stride, mark=0): make a queue of that many cells; mark is for calls: see softcxl_pool.h."},
	{"put", FAST(queue_put), METH_FASTCALL, "put(data, kind=0, timeout=None): append a record; wait while there is no room."},
	{"get", FAST(queue_get), METH_FASTCALL, "get(timeout=None): take the next record; its kind is in `kind`."},
	{"take", FAST(queue_take), METH_FASTCALL, "take(timeout=None): take the next record; it, and its kind."},
	{"mend", queue_mend, METH_VARARGS, "mend(slot): see to what a dead user has left; how many cells are to be looked at again."},
	{"leave", queue_leave, METH_NOARGS, "leave(): put and get nothing by this any more; who waits is told that it is closed."},
	{"close", queue_close, METH_VARARGS, "close(consumers=False): say that nothing more comes, or that nobody takes any more."},
	{NULL, NULL, 0, NULL},
};

static PyMemberDef queue_members[] = {
	{"kind", T_UINT, offsetof(Queue, kind), READONLY, "The kind of the last record that was taken."},
	{"left", T_BOOL, offsetof(Queue, left), READONLY, "Whether this user has left."},
	{NULL, 0, 0, 0, NULL},
};

static PyType_Slot queue_slots[] = {
	{Py_tp_doc, "Queue(memory, offset, size, slot, life=None): a queue as the user of that slot has it, until that life ends. From any thread."},
	{Py_tp_new, queue_new},
	{Py_tp_dealloc, queue_dealloc},
	{Py_tp_methods, queue_methods},
	{Py_tp_members, queue_members},
	{0, NULL},
};
static PyType_Spec queue_spec = {"softcxl.pool._native.Queue", sizeof(Queue), 0, Py_TPFLAGS_DEFAULT, queue_slots};

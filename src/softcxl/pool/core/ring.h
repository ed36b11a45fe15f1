/* SPDX-License-Identifier: Apache-2.0 */
/* One end of a ring, for Python. */

typedef struct {
	PyObject_HEAD
	Memory *memory;
	Life *life; /* of whose end it is; NULL: that stays */
	struct scxl_end end;
	int32_t spin;
	uint32_t kind; /* of the last record that was received */
	bool busy;    /* a thread is at it; changed with the interpreter's lock */
	bool left;    /* its memory may be another's: nothing is sent or received any more */
} Ring;

static PyObject *ring_type;

static PyObject *ring_make(PyObject *type, PyObject *args)
{
	PyObject *memory;
	unsigned long long at, size;
	enum scxl_result result;
	void *there;

	(void)type;
	if (!PyArg_ParseTuple(args, "O!KK", memory_type, &memory, &at, &size) || !(there = reach((Memory *)memory, at, size, SCXL_LINE)))
		return NULL;
	result = scxl_ring_make(there, size);
	if (result != SCXL_OK)
		return fail(result);
	Py_RETURN_NONE;
}

static PyObject *ring_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *memory, *life = NULL;
	unsigned long long at, size;
	int producer;
	enum scxl_result result;
	Ring *self;
	void *there;

	(void)kwargs;
	if (!PyArg_ParseTuple(args, "O!KKp|O!", memory_type, &memory, &at, &size, &producer, life_type, &life) || !(there = reach((Memory *)memory, at, size, SCXL_LINE)))
		return NULL;
	self = (Ring *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
	if (!self)
		return NULL;
	Py_INCREF(memory);
	self->memory = (Memory *)memory;
	self->life = (Life *)Py_XNewRef(life);
	self->spin = SPIN_MOST;
	result = scxl_ring_attach(&self->end, there, size, producer);
	if (result != SCXL_OK) {
		Py_DECREF(self);
		return fail(result);
	}
	return (PyObject *)self;
}

static void ring_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	Py_XDECREF((PyObject *)((Ring *)self)->life);
	Py_XDECREF((PyObject *)((Ring *)self)->memory);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

/* Only one thread at a time may have an end; the lock of the interpreter is given up while it waits. */
static bool ring_enter(Ring *self, bool producer)
{
	if (self->end.producer != producer) {
		PyErr_SetString(PyExc_TypeError, producer ? "this end of the ring receives" : "this end of the ring sends");
		return false;
	}
	if (self->busy) {
		PyErr_SetString(PyExc_RuntimeError, "another thread is at this end of the ring");
		return false;
	}
	return self->busy = true;
}

static inline bool ring_left(const Ring *self)
{
	return __atomic_load_n(&self->left, __ATOMIC_RELAXED) || (self->life && !lives(self->life));
}

struct ring_push {
	Ring *self;
	const void *bytes;
	uint32_t length, kind;
};

static enum scxl_result ring_try_push(void *what)
{
	struct ring_push *push = what;
	return ring_left(push->self) ? SCXL_CLOSED : scxl_ring_push(&push->self->end, push->bytes, push->length, push->kind);
}

/* At once: a result, or -1 with an exception. */
static int ring_put(Ring *self, const struct data *data, uint32_t kind)
{
	int result;

	if ((uint64_t)data->length > UINT32_MAX)
		return SCXL_TOO_LONG;
	if (!ring_enter(self, true))
		return -1;
	result = ring_left(self) ? SCXL_CLOSED : scxl_ring_push(&self->end, data->bytes, (uint32_t)data->length, kind);
	self->busy = false;
	if (result == SCXL_OK)
		wake(self->memory, &self->end.ring->consumer);
	return result;
}

static PyObject *ring_send(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	Ring *self = (Ring *)object;
	struct ring_push push = {.self = self};
	PyObject *timeout;
	struct data data;
	int64_t deadline;
	int result;

	if (!sent("send", args, count, &data, &push.kind, &timeout))
		return NULL;
	result = ring_put(self, &data, push.kind);
	if (result == SCXL_FULL) {
		push.bytes = data.bytes;
		push.length = (uint32_t)data.length;
		deadline = deadline_of(timeout);
		self->busy = true;
		result = deadline < 0 ? -1 : wait_for(ring_try_push, &push, self->memory, &self->end.ring->producer, deadline, &self->spin);
		self->busy = false;
		if (result == SCXL_OK)
			wake(self->memory, &self->end.ring->consumer);
	}
	data_release(&data);
	if (result < 0)
		return NULL;
	if (result != SCXL_OK)
		return fail(result);
	Py_RETURN_NONE;
}

struct ring_pop {
	Ring *self;
	uint32_t length, kind;
};

static enum scxl_result ring_try_next(void *what)
{
	struct ring_pop *pop = what;
	return ring_left(pop->self) ? SCXL_CLOSED : scxl_ring_next(&pop->self->end, &pop->length, &pop->kind);
}

/* The next record, waited for: a result, or -1 with an exception. Its kind is in the ring, too. */
static int ring_get(Ring *self, PyObject *timeout, PyObject **bytes, uint32_t *kind)
{
	struct ring_pop pop = {.self = self};
	int64_t deadline;
	int result;

	*bytes = NULL;
	if (!ring_enter(self, false))
		return -1;
	result = ring_try_next(&pop);
	if (result == SCXL_EMPTY) {
		deadline = deadline_of(timeout);
		result = deadline < 0 ? -1 : wait_for(ring_try_next, &pop, self->memory, &self->end.ring->consumer, deadline, &self->spin);
	}
	if (result == SCXL_OK) {
		*bytes = PyBytes_FromStringAndSize(NULL, pop.length);
		if (*bytes) {
			scxl_ring_take(&self->end, PyBytes_AsString(*bytes), pop.length);
			self->kind = *kind = pop.kind;
		} else {
			result = -1;
		}
	}
	self->busy = false;
	if (*bytes)
		wake(self->memory, &self->end.ring->producer);
	return result;
}

static PyObject *ring_bytes(PyObject *object, const char *name, PyObject *const *args, Py_ssize_t count)
{
	PyObject *bytes;
	uint32_t kind;
	int result = counted(name, count, 0, 1) ? ring_get((Ring *)object, count ? args[0] : NULL, &bytes, &kind) : -1;

	if (result > SCXL_OK)
		return fail(result);
	return result < 0 ? NULL : bytes;
}

static PyObject *ring_receive(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	return ring_bytes(object, "receive", args, count);
}

static PyObject *ring_take(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	PyObject *bytes = ring_bytes(object, "take", args, count);
	return bytes ? Py_BuildValue("NI", bytes, ((Ring *)object)->kind) : NULL;
}

/* Close one end, be it one's own or, for who has died, the other. Whoever sleeps is woken. */
static PyObject *ring_close(PyObject *object, PyObject *args)
{
	Ring *self = (Ring *)object;
	int producer = self->end.producer;

	if (!PyArg_ParseTuple(args, "|p", &producer))
		return NULL;
	scxl_ring_close(self->end.ring, producer);
	wake(self->memory, &self->end.ring->consumer);
	wake(self->memory, &self->end.ring->producer);
	Py_RETURN_NONE;
}

/* This end is its owner's no more: as queue_leave. */
static PyObject *ring_leave(PyObject *object, PyObject *nothing)
{
	Ring *self = (Ring *)object;
	const struct timespec pause = {0, 50000};
	int64_t most = now() + 2 * SLICE;

	(void)nothing;
	__atomic_store_n(&self->left, true, __ATOMIC_SEQ_CST);
	while (self->busy && now() < most) {
		wake(self->memory, self->end.producer ? &self->end.ring->producer : &self->end.ring->consumer);
		Py_BEGIN_ALLOW_THREADS
		nanosleep(&pause, NULL);
		Py_END_ALLOW_THREADS
	}
	Py_RETURN_NONE;
}

static PyMethodDef ring_methods[] = {
	{"make", ring_make, METH_VARARGS | METH_STATIC, "make(memory, offset, size): make a ring, as large as fits."},
	{"send", FAST(ring_send), METH_FASTCALL, "send(data, kind=0, timeout=None): append a record, whole; wait while there is no room."},
	{"receive", FAST(ring_receive), METH_FASTCALL, "receive(timeout=None): the next record; its kind is in `kind`."},
	{"take", FAST(ring_take), METH_FASTCALL, "take(timeout=None): the next record, and its kind."},
	{"leave", ring_leave, METH_NOARGS, "leave(): send and receive nothing by this any more; who waits is told that it is closed."},
	{"close", ring_close, METH_VARARGS, "close(producer=own end): say that an end has gone."},
	{NULL, NULL, 0, NULL},
};

static PyMemberDef ring_members[] = {
	{"kind", T_UINT, offsetof(Ring, kind), READONLY, "The kind of the last record that was received."},
	{"left", T_BOOL, offsetof(Ring, left), READONLY, "Whether this end was left."},
	{"size", T_ULONGLONG, offsetof(Ring, end) + offsetof(struct scxl_end, size), READONLY, "Room in the ring, in bytes."},
	{NULL, 0, 0, 0, NULL},
};

static PyType_Slot ring_slots[] = {
	{Py_tp_doc, "Ring(memory, offset, size, producer, life=None): one end of a ring, which is left when that life ends. One thread at a time."},
	{Py_tp_new, ring_new},
	{Py_tp_dealloc, ring_dealloc},
	{Py_tp_methods, ring_methods},
	{Py_tp_members, ring_members},
	{0, NULL},
};
static PyType_Spec ring_spec = {"softcxl.pool._native.Ring", sizeof(Ring), 0, Py_TPFLAGS_DEFAULT, ring_slots};

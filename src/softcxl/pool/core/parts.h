/* SPDX-License-Identifier: Apache-2.0 */
/* A client's part in a channel, for Python: what sends and receives while the client lives, with no frame of Python between.
 *
 * What is not done here at once is handed to the method of that name with an underscore before it, which the class has
 * that is derived from these: no room, an end that has gone, a client that was taken for dead, arguments that cannot be. */

#define KIND_MOST ((1u << 30) - 1)
#define KIND_REFERENCE 0x80000000u

/* -- whether the client lives -------------------------------------------------------------------------------------- */

typedef struct {
	PyObject_HEAD
	Memory *memory;
	const scxl_u64 *word;
	uint64_t value;
	bool ended;
} Life;

static PyObject *life_type;

static PyObject *life_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *memory;
	unsigned long long at, value;
	scxl_u64 *word;
	Life *self;

	(void)kwargs;
	if (!PyArg_ParseTuple(args, "O!KK", memory_type, &memory, &at, &value) || !(word = reach((Memory *)memory, at, 8, 8)))
		return NULL;
	self = (Life *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
	if (!self)
		return NULL;
	self->memory = (Memory *)Py_NewRef(memory);
	self->word = word;
	self->value = value;
	return (PyObject *)self;
}

static void life_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	Py_XDECREF((PyObject *)((Life *)self)->memory);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

static inline bool lives(const Life *self)
{
	return !self->ended && scxl_load(self->word) == self->value;
}

static int life_true(PyObject *self)
{
	return lives((Life *)self);
}

static PyObject *life_end(PyObject *self, PyObject *nothing)
{
	(void)nothing;
	((Life *)self)->ended = true;
	Py_RETURN_NONE;
}

static PyMethodDef life_methods[] = {
	{"end", life_end, METH_NOARGS, "end(): it is over here, whatever the word says."},
	{NULL, NULL, 0, NULL},
};

static PyMemberDef life_members[] = {
	{"ended", T_BOOL, offsetof(Life, ended), READONLY, "Whether it was ended here."},
	{NULL, 0, 0, 0, NULL},
};

static PyType_Slot life_slots[] = {
	{Py_tp_doc, "Life(memory, offset, value): true while the 64-bit word there is that, and it was not ended here."},
	{Py_tp_new, life_new},
	{Py_tp_dealloc, life_dealloc},
	{Py_nb_bool, life_true},
	{Py_tp_methods, life_methods},
	{Py_tp_members, life_members},
	{0, NULL},
};
static PyType_Spec life_spec = {"softcxl.pool._native.Life", sizeof(Life), 0, Py_TPFLAGS_DEFAULT, life_slots};

/* -- what the three have alike ------------------------------------------------------------------------------------- */

typedef struct {
	PyObject_HEAD
	Life *life;
	PyObject *way; /* the Ring, or the Queue */
} Part;

static PyObject *part_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	(void)args;
	(void)kwargs;
	return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}

static void part_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	Py_XDECREF((PyObject *)((Part *)self)->life);
	Py_XDECREF(((Part *)self)->way);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

static PyObject *part_take(PyObject *object, PyObject *args, PyObject *kind)
{
	Part *self = (Part *)object;
	PyObject *life, *way;

	if (!PyArg_ParseTuple(args, "O!O!", life_type, &life, kind, &way))
		return NULL;
	Py_XDECREF((PyObject *)self->life);
	Py_XDECREF(self->way);
	self->life = (Life *)Py_NewRef(life);
	self->way = Py_NewRef(way);
	Py_RETURN_NONE;
}

static inline bool part_lives(const Part *self)
{
	return self->way && lives(self->life);
}

/* Sort what was given by place and by name. False: there is something that does not belong there. */
static inline bool gathered(PyObject *const *args, Py_ssize_t count, PyObject *names, const char *const *allowed, Py_ssize_t most, PyObject **given)
{
	Py_ssize_t named = names ? PyTuple_Size(names) : 0, at;

	if (count > most)
		return false;
	for (at = 0; at < count; at++)
		given[at] = args[at];
	for (Py_ssize_t i = 0; i < named; i++) {
		for (at = 0; at < most && PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, i), allowed[at]); at++)
			;
		if (at == most || given[at])
			return false;
		given[at] = args[count + i];
	}
	return true;
}

/* Have the derived class do it. */
static PyObject *slowly(PyObject *self, const char *name, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	PyObject *method = PyObject_GetAttrString(self, name), *all = PyTuple_New(count), *named = NULL, *result = NULL;
	Py_ssize_t more = names ? PyTuple_Size(names) : 0;

	for (Py_ssize_t i = 0; all && i < count; i++)
		PyTuple_SetItem(all, i, Py_NewRef(args[i]));
	if (more && (named = PyDict_New()))
		for (Py_ssize_t i = 0; i < more; i++)
			if (PyDict_SetItem(named, PyTuple_GetItem(names, i), args[count + i]))
				goto out;
	if (method && all && (named || !more))
		result = PyObject_Call(method, all, named);
out:
	Py_XDECREF(method);
	Py_XDECREF(all);
	Py_XDECREF(named);
	return result;
}

static inline bool kind_given(PyObject *object, uint32_t *kind)
{
	unsigned long value = object ? PyLong_AsUnsignedLong(object) : 0;

	if (value == (unsigned long)-1 && PyErr_Occurred())
		PyErr_Clear();
	*kind = (uint32_t)value;
	return value <= KIND_MOST;
}

/* What came, as the program is to have it: a reference is followed. Takes the bytes over. */
static PyObject *received(PyObject *self, PyObject *bytes, uint32_t kind)
{
	PyObject *result;

	if (!bytes || !(kind & KIND_REFERENCE))
		return bytes;
	result = PyObject_CallMethod(self, "_bytes", "OI", bytes, kind);
	Py_DECREF(bytes);
	return result;
}

static const char *const sent_names[] = {"data", "kind", "timeout"}, *const got_names[] = {"timeout"};

typedef int (*sending)(PyObject *way, const struct data *data, uint32_t kind);
typedef int (*receiving)(PyObject *way, PyObject *timeout, PyObject **bytes, uint32_t *kind);

static inline PyObject *part_send(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names, sending send, const char *otherwise)
{
	PyObject *given[3] = {NULL};
	struct data data;
	uint32_t kind;

	if (gathered(args, count, names, sent_names, 3, given) && given[0] && kind_given(given[1], &kind) && part_lives((Part *)self)) {
		if (data_get(given[0], &data)) {
			int result = send(((Part *)self)->way, &data, kind);
			data_release(&data);
			if (result == SCXL_OK)
				Py_RETURN_NONE;
			if (result < 0)
				return NULL;
		} else {
			PyErr_Clear();
		}
	}
	return slowly(self, otherwise, args, count, names);
}

static inline PyObject *part_receive(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names, receiving receive, const char *otherwise)
{
	PyObject *given[1] = {NULL}, *bytes;
	uint32_t kind;
	int result;

	if (!gathered(args, count, names, got_names, 1, given) || !part_lives((Part *)self))
		return slowly(self, otherwise, args, count, names);
	result = receive(((Part *)self)->way, given[0], &bytes, &kind);
	if (result == SCXL_EMPTY || result == SCXL_CLOSED) { /* which it tells in words */
		PyObject *zero = PyLong_FromLong(0), *told = zero ? slowly(self, otherwise, &zero, 1, NULL) : NULL;
		Py_XDECREF(zero);
		return told;
	}
	if (result > SCXL_OK)
		return fail(result);
	return result < 0 ? NULL : received(self, bytes, kind);
}

#define PART_SLOTS(name) \
	{Py_tp_new, part_new}, {Py_tp_dealloc, part_dealloc}, {Py_tp_methods, name##_methods}, {0, NULL}
#define PART_SPEC(name, shown) \
	static PyType_Spec name##_spec = {"softcxl.pool._native." shown, sizeof(Part), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, name##_slots}

/* -- a ring's end that sends --------------------------------------------------------------------------------------- */

static int sender_try(PyObject *way, const struct data *data, uint32_t kind)
{
	return ring_put((Ring *)way, data, kind);
}

static PyObject *sender_send(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	return part_send(self, args, count, names, sender_try, "_send");
}

static PyObject *on_ring(PyObject *self, PyObject *args)
{
	return part_take(self, args, ring_type);
}

static PyMethodDef sender_methods[] = {
	{"_over", on_ring, METH_VARARGS, "_over(life, ring): send by that ring."},
	{"send", FAST(sender_send), METH_FASTCALL | METH_KEYWORDS,
	 "send($self, data, kind=0, timeout=None)\n--\n\n"
	 "Append a record: any bytes. Waits while there is no room; with `timeout=0` it does not.\n\n"
	 "Raises `Full` where there is no room in time, `Closed` where there is none and the consumer has gone,\n`TooLong` for what the ring can never hold."},
	{NULL, NULL, 0, NULL},
};
static PyType_Slot sender_slots[] = {{Py_tp_doc, "What sends records by a ring."}, PART_SLOTS(sender)};
PART_SPEC(sender, "Sender");

/* -- a ring's end that receives ------------------------------------------------------------------------------------ */

static int receiver_try(PyObject *way, PyObject *timeout, PyObject **bytes, uint32_t *kind)
{
	return ring_get((Ring *)way, timeout, bytes, kind);
}

static PyObject *receiver_receive(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	return part_receive(self, args, count, names, receiver_try, "_receive");
}

static PyMethodDef receiver_methods[] = {
	{"_over", on_ring, METH_VARARGS, "_over(life, ring): receive by that ring."},
	{"receive", FAST(receiver_receive), METH_FASTCALL | METH_KEYWORDS,
	 "receive($self, timeout=None)\n--\n\n"
	 "The next record's bytes; of a reference, what it refers to. With `timeout=0` it does not wait.\n\n"
	 "Raises `Empty` where nothing comes in time, `Closed` where the producer has gone and all of his is taken."},
	{NULL, NULL, 0, NULL},
};
static PyType_Slot receiver_slots[] = {{Py_tp_doc, "What receives records by a ring."}, PART_SLOTS(receiver)};
PART_SPEC(receiver, "Receiver");

/* -- a user of a queue --------------------------------------------------------------------------------------------- */

static int exchanger_try_put(PyObject *way, const struct data *data, uint32_t kind)
{
	return queue_put_now((Queue *)way, data, kind);
}

static int exchanger_try_get(PyObject *way, PyObject *timeout, PyObject **bytes, uint32_t *kind)
{
	return queue_get_one((Queue *)way, timeout, bytes, kind);
}

static PyObject *exchanger_put(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	return part_send(self, args, count, names, exchanger_try_put, "_put");
}

static PyObject *exchanger_get(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	return part_receive(self, args, count, names, exchanger_try_get, "_get");
}

static PyObject *on_queue(PyObject *self, PyObject *args)
{
	return part_take(self, args, queue_type);
}

static PyMethodDef exchanger_methods[] = {
	{"_over", on_queue, METH_VARARGS, "_over(life, queue): put and get by that queue."},
	{"put", FAST(exchanger_put), METH_FASTCALL | METH_KEYWORDS,
	 "put($self, data, kind=0, timeout=None)\n--\n\n"
	 "Append a record: any bytes. Waits while there is no room; with `timeout=0` it does not.\n\n"
	 "Raises `Full` where there is no room in time, `Closed` where the queue was finished, `TooLong`."},
	{"get", FAST(exchanger_get), METH_FASTCALL | METH_KEYWORDS,
	 "get($self, timeout=None)\n--\n\n"
	 "Take the next record's bytes; of a reference, what it refers to. With `timeout=0` it does not wait.\n\n"
	 "Raises `Empty` where nothing comes in time, `Closed` where the queue was finished and all is taken."},
	{NULL, NULL, 0, NULL},
};
static PyType_Slot exchanger_slots[] = {{Py_tp_doc, "What puts and gets records by a queue."}, PART_SLOTS(exchanger)};
PART_SPEC(exchanger, "Exchanger");

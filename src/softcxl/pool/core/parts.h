/* SPDX-License-Identifier: Apache-2.0 */
/* A client's part in a channel, for Python: what sends and receives while the client lives, with no frame of Python between.
 *
 * What is not done here at once is handed to the method of that name with an underscore before it, which the class has
 * that is derived from these: no room, an end that has gone, a client that was taken for dead, arguments that cannot be. */

#define KIND_MOST ((1u << 30) - 1)
#define KIND_REFERENCE 0x80000000u

/* -- where bytes of a region are ----------------------------------------------------------------------------------- */

typedef struct {
	PyObject_HEAD
	PyObject *lent;
	unsigned long long offset, length;
	bool given;
} Pointed;

static PyObject *pointed_type;

static PyObject *pointed_made(PyTypeObject *type, PyObject *lent, uint64_t offset, uint64_t length, bool given)
{
	Pointed *self = (Pointed *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);

	if (self) {
		self->lent = Py_NewRef(lent);
		self->offset = offset;
		self->length = length;
		self->given = given;
	}
	return (PyObject *)self;
}

static PyObject *pointed_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *lent;
	unsigned long long offset, length;
	int given;

	(void)kwargs;
	return PyArg_ParseTuple(args, "OKKp", &lent, &offset, &length, &given) ? pointed_made(type, lent, offset, length, given) : NULL;
}

static void pointed_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	Py_XDECREF(((Pointed *)self)->lent);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

static PyMemberDef pointed_members[] = {
	{"_lent", T_OBJECT_EX, offsetof(Pointed, lent), READONLY, "What is lent of the region."},
	{"offset", T_ULONGLONG, offsetof(Pointed, offset), READONLY, "Where the bytes begin in the region."},
	{"length", T_ULONGLONG, offsetof(Pointed, length), READONLY, "How many bytes there are."},
	{"given", T_BOOL, offsetof(Pointed, given), 0, "Whether the region is the receiver's."},
	{NULL, 0, 0, 0, NULL},
};

static PyType_Slot pointed_slots[] = {
	{Py_tp_doc, "Pointed(lent, offset, length, given): where bytes of a region are."},
	{Py_tp_new, pointed_new},
	{Py_tp_dealloc, pointed_dealloc},
	{Py_tp_members, pointed_members},
	{0, NULL},
};
static PyType_Spec pointed_spec = {"softcxl.pool._native.Pointed", sizeof(Pointed), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, pointed_slots};

/* -- what the three have alike ------------------------------------------------------------------------------------- */

/* The region that a reference was to: most go to the one that the last one went to. */
struct region_named {
	uint64_t index, generation, size;
};

/* A reference as it goes through a channel. */
struct spot {
	uint64_t index, generation, offset, length;
};

typedef struct {
	PyObject_HEAD
	Life *life;
	PyObject *way;   /* the Ring, or the Queue */
	PyObject *known; /* a weak reference to the region that was referred to last, and whether it is there */
	Life *known_life;
	struct region_named sent;
	PyObject *lent; /* what the last reference that came was to */
	struct region_named came;
	PyTypeObject *record, *reference; /* the classes of what is received */
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
	Py_XDECREF(((Part *)self)->known);
	Py_XDECREF((PyObject *)((Part *)self)->known_life);
	Py_XDECREF(((Part *)self)->lent);
	Py_XDECREF((PyObject *)((Part *)self)->record);
	Py_XDECREF((PyObject *)((Part *)self)->reference);
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

/* Returns what was there before: to be let go when all has been set, as that may run Python, and other threads by it. */
static PyObject *part_keep(PyObject **place, PyObject *value)
{
	PyObject *old = *place;

	*place = value == Py_None ? NULL : Py_NewRef(value);
	return old;
}

static PyObject *part_refers(PyObject *object, PyObject *args)
{
	Part *self = (Part *)object;
	PyObject *region, *life, *old[2];
	unsigned long long index, generation, size;

	if (!PyArg_ParseTuple(args, "OO!KKK", &region, life_type, &life, &index, &generation, &size))
		return NULL;
	old[0] = part_keep(&self->known, region);
	old[1] = part_keep((PyObject **)&self->known_life, life);
	self->sent = (struct region_named){index, generation, size};
	Py_XDECREF(old[0]);
	Py_XDECREF(old[1]);
	Py_RETURN_NONE;
}

static PyObject *part_opens(PyObject *object, PyObject *args)
{
	Part *self = (Part *)object;
	PyObject *lent, *record, *reference, *old[3];
	unsigned long long index, generation, size;

	if (!PyArg_ParseTuple(args, "OKKKO!O!", &lent, &index, &generation, &size, &PyType_Type, &record, &PyType_Type, &reference))
		return NULL;
	if (!PyType_IsSubtype((PyTypeObject *)record, &PyTuple_Type) || !PyType_IsSubtype((PyTypeObject *)reference, (PyTypeObject *)pointed_type)) {
		PyErr_SetString(PyExc_TypeError, "a record is a tuple, and a reference a Pointed");
		return NULL;
	}
	old[0] = part_keep(&self->lent, lent);
	old[1] = part_keep((PyObject **)&self->record, record);
	old[2] = part_keep((PyObject **)&self->reference, reference);
	self->came = (struct region_named){index, generation, size};
	for (unsigned i = 0; i < 3; i++)
		Py_XDECREF(old[i]);
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

/* What came, waited for. False: `told` is what to return instead. */
static inline bool part_got(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names, receiving receive, const char *otherwise, PyObject **bytes, uint32_t *kind, PyObject **told)
{
	PyObject *given[1] = {NULL};
	int result;

	*told = NULL;
	if (!gathered(args, count, names, got_names, 1, given) || !part_lives((Part *)self)) {
		*told = slowly(self, otherwise, args, count, names);
		return false;
	}
	result = receive(((Part *)self)->way, given[0], bytes, kind);
	if (result == SCXL_EMPTY || result == SCXL_CLOSED) { /* which it tells in words */
		PyObject *zero = PyLong_FromLong(0);
		*told = zero ? slowly(self, otherwise, &zero, 1, NULL) : NULL;
		Py_XDECREF(zero);
	} else if (result > SCXL_OK) {
		fail(result);
	}
	return result == SCXL_OK;
}

static inline PyObject *part_receive(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names, receiving receive, const char *otherwise)
{
	PyObject *bytes, *told;
	uint32_t kind;

	return part_got(self, args, count, names, receive, otherwise, &bytes, &kind, &told) ? received(self, bytes, kind) : told;
}

static const char *const referred_names[] = {"region", "offset", "size", "give", "kind", "timeout"};

static inline bool number_given(PyObject *object, uint64_t *number)
{
	unsigned long long value = PyLong_AsUnsignedLongLong(object);

	if (value == (unsigned long long)-1 && PyErr_Occurred()) {
		PyErr_Clear();
		return false;
	}
	*number = value;
	return true;
}

/* Whether the region that was referred to last is this one, and is there yet. */
static inline bool part_knows(const Part *self, PyObject *region)
{
	PyObject *closed;
	bool open;

	if (!self->known || PyWeakref_GetObject(self->known) != region || !lives(self->known_life))
		return false;
	closed = PyObject_GetAttrString(region, "_closed");
	open = closed == Py_False;
	Py_XDECREF(closed);
	PyErr_Clear();
	return open;
}

static inline PyObject *part_refer(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names, sending send, const char *otherwise)
{
	Part *self = (Part *)object;
	PyObject *given[6] = {NULL};
	struct spot spot = {0};
	struct data data = {.bytes = &spot, .length = sizeof spot};
	uint32_t kind;

	if (count <= 3 && gathered(args, count, names, referred_names, 6, given) && given[0] && (!given[3] || given[3] == Py_False) && kind_given(given[4], &kind) &&
	    part_lives(self) && part_knows(self, given[0]) && (!given[1] || number_given(given[1], &spot.offset)) && spot.offset <= self->sent.size) {
		spot.index = self->sent.index;
		spot.generation = self->sent.generation;
		spot.length = self->sent.size - spot.offset;
		if ((!given[2] || given[2] == Py_None || number_given(given[2], &spot.length)) && spot.length <= self->sent.size - spot.offset) {
			int result = send(self->way, &data, kind | KIND_REFERENCE);
			if (result == SCXL_OK)
				Py_RETURN_NONE;
			if (result < 0)
				return NULL;
		}
	}
	return slowly(object, otherwise, args, count, names);
}

/* What came, as a record. NULL without an exception: it is Python's to make one of it. */
static PyObject *part_record(const Part *self, PyObject *bytes, uint32_t kind)
{
	PyObject *fields, *reference, *args, *record;
	struct spot spot;

	if (!self->record)
		return NULL;
	if (!(kind & KIND_REFERENCE)) {
		fields = Py_BuildValue("OIO", bytes, kind, Py_None);
	} else {
		if (!self->lent || kind & ~(KIND_REFERENCE | KIND_MOST) || PyBytes_Size(bytes) != sizeof spot)
			return NULL;
		memcpy(&spot, PyBytes_AsString(bytes), sizeof spot);
		if (spot.index != self->came.index || spot.generation != self->came.generation || spot.offset > self->came.size ||
		    spot.length > self->came.size - spot.offset)
			return NULL;
		reference = pointed_made(self->reference, self->lent, spot.offset, spot.length, false);
		fields = reference ? Py_BuildValue("y#IN", "", (Py_ssize_t)0, kind & KIND_MOST, reference) : NULL;
	}
	args = fields ? PyTuple_Pack(1, fields) : NULL;
	Py_XDECREF(fields);
	record = args ? ((newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new))(self->record, args, NULL) : NULL;
	Py_XDECREF(args);
	return record;
}

static inline PyObject *part_receive_record(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names, receiving receive, const char *otherwise)
{
	PyObject *bytes, *told;
	uint32_t kind;

	if (!part_got(self, args, count, names, receive, otherwise, &bytes, &kind, &told))
		return told;
	told = part_record((Part *)self, bytes, kind);
	if (!told && !PyErr_Occurred())
		told = PyObject_CallMethod(self, "_read", "OI", bytes, kind);
	Py_DECREF(bytes);
	return told;
}

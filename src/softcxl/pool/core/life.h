/* SPDX-License-Identifier: Apache-2.0 */
/* Whether what a client has in the pool is its own yet: till it leaves, or is taken for dead. */

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
	return !__atomic_load_n(&self->ended, __ATOMIC_RELAXED) && scxl_load(self->word) == self->value;
}

static int life_true(PyObject *self)
{
	return lives((Life *)self);
}

static PyObject *life_end(PyObject *self, PyObject *nothing)
{
	(void)nothing;
	__atomic_store_n(&((Life *)self)->ended, true, __ATOMIC_SEQ_CST);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, for Python: words in it, and cache lines. */

static PyObject *memory_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"", "ring", "rest", NULL};
	PyObject *buffer, *ring = Py_None, *resting = Py_None;
	Memory *self;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OO", names, &buffer, &ring, &resting))
		return NULL;
	if (resting != Py_None && ring == Py_None) {
		PyErr_SetString(PyExc_ValueError, "who rests behind a device needs its doorbell, too: ring is missing");
		return NULL;
	}
	self = (Memory *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
	if (self && PyObject_GetBuffer(buffer, &self->view, PyBUF_WRITABLE | PyBUF_SIMPLE)) {
		Py_DECREF(self);
		return NULL;
	}
	if (self && (uintptr_t)self->view.buf % SCXL_LINE) {
		PyErr_SetString(PyExc_ValueError, "shared memory begins on a line of 64 bytes");
		Py_DECREF(self);
		return NULL;
	}
	if (self && ring != Py_None)
		self->ring = Py_NewRef(ring);
	if (self && resting != Py_None)
		self->rest = Py_NewRef(resting);
	return (PyObject *)self;
}

static int memory_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(((Memory *)self)->ring);
	Py_VISIT(((Memory *)self)->rest);
	return 0;
}

static int memory_clear(PyObject *self)
{
	Py_CLEAR(((Memory *)self)->ring);
	Py_CLEAR(((Memory *)self)->rest);
	return 0;
}

static void memory_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	memory_clear(self);
	if (((Memory *)self)->view.obj)
		PyBuffer_Release(&((Memory *)self)->view);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

/* `size` bytes at `offset`, or NULL with an exception. */
static void *reach(Memory *memory, unsigned long long offset, unsigned long long size, unsigned align)
{
	unsigned long long all = (unsigned long long)memory->view.len;

	if (offset > all || size > all - offset || offset % align) {
		PyErr_Format(PyExc_IndexError, "%llu bytes at %llu: there are %llu, and an offset is a multiple of %u", size, offset, all, align);
		return NULL;
	}
	return (char *)memory->view.buf + offset;
}

static PyObject *memory_load(PyObject *self, PyObject *offset)
{
	unsigned long long at = PyLong_AsUnsignedLongLong(offset);
	scxl_u64 *word = PyErr_Occurred() ? NULL : reach((Memory *)self, at, 8, 8);

	return word ? PyLong_FromUnsignedLongLong(scxl_load(word)) : NULL;
}

static PyObject *memory_store(PyObject *self, PyObject *args)
{
	unsigned long long at, value;
	scxl_u64 *word;

	if (!PyArg_ParseTuple(args, "KK", &at, &value) || !(word = reach((Memory *)self, at, 8, 8)))
		return NULL;
	scxl_store(word, value);
	Py_RETURN_NONE;
}

static PyObject *memory_swap(PyObject *self, PyObject *args)
{
	unsigned long long at, from, to;
	scxl_u64 *word;

	if (!PyArg_ParseTuple(args, "KKK", &at, &from, &to) || !(word = reach((Memory *)self, at, 8, 8)))
		return NULL;
	return PyBool_FromLong(scxl_swap(word, from, to));
}

static PyObject *memory_add(PyObject *self, PyObject *args)
{
	unsigned long long at;
	long long by;
	scxl_u64 *word;

	if (!PyArg_ParseTuple(args, "KL", &at, &by) || !(word = reach((Memory *)self, at, 8, 8)))
		return NULL;
	return PyLong_FromUnsignedLongLong(__atomic_fetch_add(word, (uint64_t)by, __ATOMIC_SEQ_CST) + (uint64_t)by);
}

static PyObject *memory_wait(PyObject *self, PyObject *args)
{
	unsigned long long at;
	unsigned value;
	PyObject *timeout = NULL;
	int64_t deadline, left;
	scxl_u32 *word;
	int result = 0;

	if (!PyArg_ParseTuple(args, "KI|O", &at, &value, &timeout) || !(word = reach((Memory *)self, at, 4, 4)))
		return NULL;
	deadline = deadline_of(timeout);
	if (deadline < 0)
		return NULL;
	while (scxl_load(word) == value && (left = deadline == INT64_MAX ? SLICE : deadline - now()) > 0) {
		Py_BEGIN_ALLOW_THREADS
		result = futex_wait(word, value, left < SLICE ? left : SLICE);
		Py_END_ALLOW_THREADS
		if (PyErr_CheckSignals())
			return NULL;
		if (result && result != ETIMEDOUT && result != EAGAIN && result != EINTR) {
			errno = result;
			return PyErr_SetFromErrno(PyExc_OSError);
		}
	}
	return PyBool_FromLong(scxl_load(word) != value);
}

static PyObject *memory_wake(PyObject *self, PyObject *args)
{
	unsigned long long at;
	int count = INT32_MAX;
	scxl_u32 *word;

	if (!PyArg_ParseTuple(args, "K|i", &at, &count) || !(word = reach((Memory *)self, at, 4, 4)))
		return NULL;
	return PyLong_FromLong(futex_wake(word, count));
}

#if defined(__x86_64__)
static void flush_line(void *line)
{
	static int how; /* 1: clflush, 2: clflushopt, 3: clwb */

	if (!how) {
		unsigned a, b = 0, c, d;
		__get_cpuid_count(7, 0, &a, &b, &c, &d);
		how = b >> 24 & 1 ? 3 : b >> 23 & 1 ? 2 : 1;
	}
	if (how == 3)
		__asm__ volatile(".byte 0x66; xsaveopt %0" : "+m"(*(volatile char *)line)); /* clwb, whatever the assembler knows */
	else if (how == 2)
		__asm__ volatile(".byte 0x66; clflush %0" : "+m"(*(volatile char *)line));
	else
		__asm__ volatile("clflush %0" : "+m"(*(volatile char *)line));
}

static void drop_line(void *line)
{
	__asm__ volatile("clflush %0" : "+m"(*(volatile char *)line));
}
#elif defined(__aarch64__)
static void flush_line(void *line) { __asm__ volatile("dc cvac, %0" : : "r"(line) : "memory"); }
static void drop_line(void *line) { __asm__ volatile("dc civac, %0" : : "r"(line) : "memory"); }
#endif

static PyObject *over_lines(PyObject *self, PyObject *args, void (*each)(void *))
{
	unsigned long long at, size;
	char *from;

	if (!PyArg_ParseTuple(args, "KK", &at, &size) || !(from = reach((Memory *)self, at, size, 1)))
		return NULL;
	scxl_fence();
	for (char *line = from - (uintptr_t)from % SCXL_LINE; line < from + size; line += SCXL_LINE)
		each(line);
	scxl_fence();
	Py_RETURN_NONE;
}

static PyObject *memory_flush(PyObject *self, PyObject *args) { return over_lines(self, args, flush_line); }
static PyObject *memory_invalidate(PyObject *self, PyObject *args) { return over_lines(self, args, drop_line); }

static PyMethodDef memory_methods[] = {
	{"load", memory_load, METH_O, "load(offset): the 64-bit word there."},
	{"store", memory_store, METH_VARARGS, "store(offset, value): write a 64-bit word."},
	{"swap", memory_swap, METH_VARARGS, "swap(offset, old, new): compare-and-swap of a 64-bit word; whether it was old."},
	{"add", memory_add, METH_VARARGS, "add(offset, by): add to a 64-bit word, wrapping; what it then is."},
	{"wait", memory_wait, METH_VARARGS, "wait(offset, value, timeout=None): sleep while the 32-bit word is value; whether it is another now."},
	{"wake", memory_wake, METH_VARARGS, "wake(offset, count=all): wake who sleeps on a 32-bit word; how many."},
	{"flush", memory_flush, METH_VARARGS, "flush(offset, size): write the cache lines of a range back to memory."},
	{"invalidate", memory_invalidate, METH_VARARGS, "invalidate(offset, size): drop the cache lines of a range, written back."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot memory_slots[] = {
	{Py_tp_doc, "Memory(buffer, *, ring=None, rest=None): shared memory, a writable buffer that begins on a line of 64 bytes.\n\n"
		    "ring(offset) wakes who sleeps behind a device. rest(offset, seconds) is how one sleeps who is behind one."},
	{Py_tp_traverse, memory_traverse},
	{Py_tp_clear, memory_clear},
	{Py_tp_new, memory_new},
	{Py_tp_dealloc, memory_dealloc},
	{Py_tp_methods, memory_methods},
	{0, NULL},
};
static PyType_Spec memory_spec = {"softcxl.pool._native.Memory", sizeof(Memory), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, memory_slots};


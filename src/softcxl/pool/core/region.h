/* SPDX-License-Identifier: Apache-2.0 */
/* A region as the owner of one slot has it, for Python. */

#include <stdio.h>
#include <sys/mman.h>

#define BULK 65536          /* bytes from which the interpreter's lock is given up */
#define PATIENCE 1000000000ll /* ns that an operation waits for a lock at least, when no timeout is given */
#define SUSPECT 5000000ll   /* ns of waiting for a lock, after which one looks whether its holder lives */

typedef struct {
	PyObject_HEAD
	PyObject *sources; /* a tuple of Memory and None, which keeps what is mapped */
	Memory *directory;
	struct scxl_map *maps;
	struct scxl_pool pool;
	struct scxl_opened opened;
	unsigned long holder; /* the thread that has the lock, by lock() */
	pid_t process;        /* and its process: what forks has not, in the child */
	bool held;
	int32_t spin;
} Region;

static PyObject *region_type;
static scxl_u32 journalling; /* a process has one slot in a pool, and one journal */

/* In a child: the thread that had the journal is the parent's. */
static void journal_is_free(void)
{
	scxl_store(&journalling, 0);
}

static void region_dealloc(PyObject *object)
{
	Region *self = (Region *)object;
	PyTypeObject *type = Py_TYPE(object);

	if (self->held && self->process == getpid()) {
		scxl_region_unlock(&self->opened);
		wake(self->directory, &self->opened.region->waiting);
	}
	PyMem_Free(self->maps);
	Py_XDECREF(self->sources);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
	Py_DECREF(type);
}

static PyObject *region_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *directory, *sources;
	unsigned long long index, generation, epoch;
	unsigned short slot;
	enum scxl_result result;
	Py_ssize_t count;
	Region *self;

	(void)kwargs;
	if (!PyArg_ParseTuple(args, "O!KKOHK", memory_type, &directory, &index, &generation, &sources, &slot, &epoch))
		return NULL;
	self = (Region *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
	if (!self)
		return NULL;
	self->spin = SPIN_MOST;
	if (!(self->sources = PySequence_Tuple(sources)) || (count = PyTuple_Size(self->sources)) < 0)
		goto failed;
	if (count < 1 || count > SCXL_SOURCES || PyTuple_GetItem(self->sources, 0) != directory) {
		PyErr_Format(PyExc_ValueError, "%zd sources: there are 1 to %d, and the first is the directory's memory", count, SCXL_SOURCES);
		goto failed;
	}
	if (!(self->maps = PyMem_Calloc(count, sizeof *self->maps))) {
		PyErr_NoMemory();
		goto failed;
	}
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *source = PyTuple_GetItem(self->sources, i);
		if (source == Py_None)
			continue;
		if (!PyObject_TypeCheck(source, (PyTypeObject *)memory_type)) {
			PyErr_Format(PyExc_TypeError, "source %zd: a Memory or None is needed", i);
			goto failed;
		}
		self->maps[i] = (struct scxl_map){((Memory *)source)->view.buf, (uint64_t)((Memory *)source)->view.len};
	}
	self->directory = (Memory *)directory;
	result = scxl_pool_attach(&self->pool, self->maps, (uint32_t)count, slot, epoch, &journalling);
	if (result == SCXL_OK)
		result = scxl_region_open(&self->opened, &self->pool, index, generation);
	if (result != SCXL_OK) {
		fail(result);
		goto failed;
	}
	return (PyObject *)self;
failed:
	Py_DECREF(self);
	return NULL;
}

/* -- lock ---------------------------------------------------------------------------------------------------------- */

static enum scxl_result region_try_lock(void *what)
{
	return scxl_region_lock(what);
}

/* Whether the process of a slot has gone, as far as can be seen from here. */
static bool process_gone(const struct scxl_slot *slot)
{
	char path[40], text[1024], *at;
	size_t length;
	FILE *file;

	snprintf(path, sizeof path, "/proc/%u/stat", (unsigned)slot->pid);
	file = fopen(path, "re");
	if (!file)
		return errno == ENOENT;
	length = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[length] = 0;
	at = strrchr(text, ')'); /* the name of the program may hold anything */
	if (!at || at[1] != ' ')
		return length == 0;
	if (at[2] == 'Z' || at[2] == 'X')
		return true;
	for (int field = 2; field < 22 && at; field++)
		at = strchr(at + 1, ' ');
	return at && strtoull(at + 1, NULL, 10) != slot->start;
}

/* Whether the holder of a lock is dead: by its slot, or, on one host, as its process is no more. */
static bool holder_dead(const struct scxl_pool *pool, uint32_t number, uint64_t epoch)
{
	struct scxl_slot *slot, *own = &pool->slots[pool->slot];

	if (scxl_slot_gone(pool, number, epoch))
		return true;
	slot = &pool->slots[number];
	if (slot == own || (slot->flags | own->flags) & SCXL_SLOT_REMOTE || !slot->pid || !own->host[0] || memcmp(slot->host, own->host, sizeof own->host))
		return false;
	return process_gone(slot) && scxl_slot_declare_dead(slot, epoch);
}

/* Take the lock, and mend what a dead holder left. -1 with an exception where a signal handler raised. */
static int region_acquire(Region *self, int64_t deadline)
{
	int result = scxl_region_lock(&self->opened);

	while (result == SCXL_BUSY && (deadline == INT64_MAX || now() < deadline)) {
		int64_t look = now() + SUSPECT;
		uint64_t epoch;
		uint32_t slot;

		result = wait_for(region_try_lock, &self->opened, self->directory, &self->opened.region->waiting, look < deadline ? look : deadline, &self->spin);
		if (result == SCXL_BUSY && scxl_region_holder(&self->opened, &slot, &epoch) && holder_dead(&self->pool, slot, epoch)) {
			result = scxl_region_mend(&self->opened, slot, epoch);
			wake(self->directory, &self->opened.region->waiting);
			if (result == SCXL_OK || result == SCXL_TORN || result == SCXL_EMPTY)
				result = SCXL_BUSY;
		}
		/* Each wait is so short that a signal may find it between two, and then it tells nobody */
		if (result == SCXL_BUSY && PyErr_CheckSignals())
			return -1;
	}
	return result;
}

static int region_release(Region *self)
{
	enum scxl_result result = scxl_region_unlock(&self->opened);
	wake(self->directory, &self->opened.region->waiting);
	return result;
}

static inline bool region_has(const Region *self)
{
	return self->held && self->holder == PyThread_get_thread_ident();
}

/* Who holds a lock within an operation is through, or dead and found out, within a lease: nobody waits much longer. */
static int64_t patience(const Region *self)
{
	int64_t leases = 2000000ll * self->pool.header->lease;
	return now() + (leases > PATIENCE ? leases : PATIENCE);
}

/* For one operation: whether the lock had to be taken for it is in *taken. */
static int region_enter(Region *self, PyObject *timeout, bool *taken)
{
	int64_t deadline;
	int result;

	*taken = false;
	if (region_has(self))
		return SCXL_OK;
	deadline = timeout && timeout != Py_None ? deadline_of(timeout) : patience(self);
	result = deadline < 0 ? -1 : region_acquire(self, deadline);
	*taken = result == SCXL_OK;
	return result;
}

static int region_leave(Region *self, int result, bool taken)
{
	int released = taken ? region_release(self) : SCXL_OK;
	return result == SCXL_OK ? released : result;
}

static PyObject *region_lock(PyObject *object, PyObject *args)
{
	Region *self = (Region *)object;
	PyObject *timeout = NULL;
	int64_t deadline;
	int result;

	if (!PyArg_ParseTuple(args, "|O", &timeout))
		return NULL;
	if (region_has(self)) {
		PyErr_SetString(PyExc_RuntimeError, "this thread has the region's lock already");
		return NULL;
	}
	deadline = deadline_of(timeout);
	result = deadline < 0 ? -1 : region_acquire(self, deadline);
	if (result < 0)
		return NULL;
	if (result != SCXL_OK)
		return fail(result);
	self->held = true;
	self->process = getpid();
	self->holder = PyThread_get_thread_ident();
	Py_RETURN_NONE;
}

static PyObject *region_unlock(PyObject *object, PyObject *unused)
{
	Region *self = (Region *)object;
	int result;

	(void)unused;
	if (!region_has(self)) {
		PyErr_SetString(PyExc_RuntimeError, "this thread has not the region's lock");
		return NULL;
	}
	self->held = false;
	result = region_release(self);
	if (result != SCXL_OK)
		return fail(result);
	Py_RETURN_NONE;
}

/* -- bytes --------------------------------------------------------------------------------------------------------- */

static bool region_reaches(const Region *self, unsigned long long offset, unsigned long long size)
{
	if (scxl_region_in(&self->opened, offset, size))
		return true;
	PyErr_Format(PyExc_IndexError, "%llu bytes at %llu: the region has %llu", size, offset, (unsigned long long)self->opened.size);
	return false;
}

static int region_get(Region *self, uint64_t offset, void *to, uint64_t size, unsigned trusted)
{
	int result = SCXL_BUSY;
	bool taken;

	if (!region_has(self)) {
		if (size < BULK) {
			result = scxl_region_read(&self->opened, offset, to, size, trusted);
		} else {
			Py_BEGIN_ALLOW_THREADS
			result = scxl_region_read(&self->opened, offset, to, size, trusted);
			Py_END_ALLOW_THREADS
		}
	}
	if (result != SCXL_BUSY)
		return result;
	result = region_enter(self, NULL, &taken);
	if (result != SCXL_OK)
		return result;
	if (size < BULK) {
		result = scxl_region_read_locked(&self->opened, offset, to, size, trusted);
	} else {
		Py_BEGIN_ALLOW_THREADS
		result = scxl_region_read_locked(&self->opened, offset, to, size, trusted);
		Py_END_ALLOW_THREADS
	}
	return region_leave(self, result, taken);
}

static int region_put(Region *self, uint64_t offset, const void *from, uint64_t size)
{
	int result;

	if (size < BULK)
		return scxl_region_write(&self->opened, offset, from, size);
	Py_BEGIN_ALLOW_THREADS
	result = scxl_region_write(&self->opened, offset, from, size);
	Py_END_ALLOW_THREADS
	return result;
}

static PyObject *done(int result)
{
	if (result < 0)
		return NULL;
	if (result != SCXL_OK)
		return fail(result);
	Py_RETURN_NONE;
}

/* Have the kernel back new memory by large pages, where it does that for those who ask: most of what a large object costs
 * is the first touch of its pages. */
static void backed_by_large(char *bytes, uint64_t size)
{
	const uint64_t large = 2ull << 20;
	uint64_t head = -(uintptr_t)bytes & (large - 1);

	if (size >= 2 * large)
		madvise(bytes + head, (size - head) & ~(large - 1), MADV_HUGEPAGE);
}

static PyObject *region_read(PyObject *object, PyObject *args)
{
	Region *self = (Region *)object;
	unsigned long long offset, size;
	unsigned trusted = 0;
	PyObject *bytes;
	int result;

	if (!PyArg_ParseTuple(args, "KK|I", &offset, &size, &trusted) || !region_reaches(self, offset, size))
		return NULL;
	bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
	if (!bytes)
		return NULL;
	backed_by_large(PyBytes_AsString(bytes), size);
	result = region_get(self, offset, PyBytes_AsString(bytes), size, trusted);
	if (result == SCXL_OK)
		return bytes;
	Py_DECREF(bytes);
	return done(result);
}

static PyObject *region_read_into(PyObject *object, PyObject *args)
{
	Region *self = (Region *)object;
	unsigned long long offset;
	unsigned trusted = 0;
	Py_buffer to;
	int result = -1;

	if (!PyArg_ParseTuple(args, "Kw*|I", &offset, &to, &trusted))
		return NULL;
	if (region_reaches(self, offset, (unsigned long long)to.len))
		result = region_get(self, offset, to.buf, (uint64_t)to.len, trusted);
	PyBuffer_Release(&to);
	return done(result);
}

static PyObject *region_write(PyObject *object, PyObject *args)
{
	Region *self = (Region *)object;
	unsigned long long offset;
	PyObject *timeout = NULL;
	Py_buffer from;
	bool taken;
	int result = -1;

	if (!PyArg_ParseTuple(args, "Ky*|O", &offset, &from, &timeout))
		return NULL;
	if (region_reaches(self, offset, (unsigned long long)from.len)) {
		result = region_enter(self, timeout, &taken);
		if (result == SCXL_OK)
			result = region_leave(self, region_put(self, offset, from.buf, (uint64_t)from.len), taken);
	}
	PyBuffer_Release(&from);
	return done(result);
}

/* -- words --------------------------------------------------------------------------------------------------------- */

static bool region_word(const Region *self, unsigned long long offset)
{
	if (!(offset % 8))
		return region_reaches(self, offset, 8);
	PyErr_Format(PyExc_IndexError, "a word of 8 bytes at %llu: an offset is a multiple of 8", offset);
	return false;
}

/* Replace a word within the lock, by what `value` makes of it: by adding, or if it is `from`. */
static int region_change(Region *self, uint64_t offset, bool add, uint64_t from, uint64_t value, uint64_t *old)
{
	bool taken;
	int result = region_enter(self, NULL, &taken);

	if (result != SCXL_OK)
		return result;
	result = scxl_region_read_locked(&self->opened, offset, old, 8, 0);
	if (result == SCXL_OK && (add || *old == from)) {
		value += add ? *old : 0;
		result = scxl_region_write(&self->opened, offset, &value, 8);
	}
	return region_leave(self, result, taken);
}

static PyObject *region_load(PyObject *object, PyObject *offset)
{
	unsigned long long at = PyLong_AsUnsignedLongLong(offset);
	uint64_t value;
	int result;

	if (PyErr_Occurred() || !region_word((Region *)object, at))
		return NULL;
	result = region_get((Region *)object, at, &value, 8, 0);
	return result == SCXL_OK ? PyLong_FromUnsignedLongLong(value) : done(result);
}

static PyObject *region_swap(PyObject *object, PyObject *args)
{
	unsigned long long offset, from, to;
	uint64_t old;
	int result;

	if (!PyArg_ParseTuple(args, "KKK", &offset, &from, &to) || !region_word((Region *)object, offset))
		return NULL;
	result = region_change((Region *)object, offset, false, from, to, &old);
	return result == SCXL_OK ? PyBool_FromLong(old == from) : done(result);
}

static PyObject *region_add(PyObject *object, PyObject *args)
{
	unsigned long long offset;
	long long by;
	uint64_t old;
	int result;

	if (!PyArg_ParseTuple(args, "KL", &offset, &by) || !region_word((Region *)object, offset))
		return NULL;
	result = region_change((Region *)object, offset, true, 0, (uint64_t)by, &old);
	return result == SCXL_OK ? PyLong_FromUnsignedLongLong(old + (uint64_t)by) : done(result);
}

/* -- mending ------------------------------------------------------------------------------------------------------- */

static PyObject *region_mend(PyObject *object, PyObject *args)
{
	Region *self = (Region *)object;
	unsigned long long epoch;
	enum scxl_result result;
	unsigned short slot;

	if (!PyArg_ParseTuple(args, "HK", &slot, &epoch))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	result = scxl_region_mend(&self->opened, slot, epoch);
	Py_END_ALLOW_THREADS
	wake(self->directory, &self->opened.region->waiting);
	if (result == SCXL_OK || result == SCXL_TORN || result == SCXL_EMPTY)
		return PyBool_FromLong(result != SCXL_EMPTY);
	return fail(result);
}

static PyObject *region_rebuild(PyObject *object, PyObject *args)
{
	Region *self = (Region *)object;
	unsigned long long offset, size;
	unsigned copy;
	bool taken;
	int result;

	if (!PyArg_ParseTuple(args, "IKK", &copy, &offset, &size) || !region_reaches(self, offset, size))
		return NULL;
	result = region_enter(self, NULL, &taken);
	if (result == SCXL_OK) {
		Py_BEGIN_ALLOW_THREADS
		result = scxl_region_rebuild(&self->opened, copy, offset, size);
		Py_END_ALLOW_THREADS
		result = region_leave(self, result, taken);
	}
	return done(result);
}

static PyObject *region_torn(PyObject *object, void *closure)
{
	struct scxl_opened *opened = &((Region *)object)->opened;
	uint64_t torn = scxl_load(&opened->region->torn);
	unsigned unit = scxl_torn_unit(opened->size);

	(void)closure;
	if (!(torn & UINT32_MAX))
		Py_RETURN_NONE;
	return Py_BuildValue("KK", (unsigned long long)(torn >> 32 << unit), (unsigned long long)((torn & UINT32_MAX) << unit));
}

static PyObject *region_bitmap(PyObject *object, void *field)
{
	return PyLong_FromUnsignedLong(scxl_load((scxl_u32 *)((char *)((Region *)object)->opened.region + (size_t)field)));
}

static PyMethodDef region_methods[] = {
	{"lock", region_lock, METH_VARARGS, "lock(timeout=None): take the region's lock; what a dead holder left is mended."},
	{"unlock", region_unlock, METH_NOARGS, "unlock(): give the lock back."},
	{"read", region_read, METH_VARARGS, "read(offset, size, trusted=0): bytes of a healthy copy; trusted: copies whose poison is elsewhere."},
	{"read_into", region_read_into, METH_VARARGS, "read_into(offset, buffer, trusted=0): fill a writable buffer."},
	{"write", region_write, METH_VARARGS, "write(offset, data, timeout=two leases): write, whole or not at all, to every healthy copy."},
	{"load", region_load, METH_O, "load(offset): the 64-bit word there."},
	{"swap", region_swap, METH_VARARGS, "swap(offset, old, new): compare-and-swap of a 64-bit word; whether it was old."},
	{"add", region_add, METH_VARARGS, "add(offset, by): add to a 64-bit word, wrapping; what it then is."},
	{"mend", region_mend, METH_VARARGS, "mend(slot, epoch): mend what a dead slot has left; whether there was something."},
	{"rebuild", region_rebuild, METH_VARARGS, "rebuild(copy, offset, size): bring a range to a joining copy, within the lock."},
	{NULL, NULL, 0, NULL},
};

static PyMemberDef region_members[] = {
	{"size", T_ULONGLONG, offsetof(Region, opened) + offsetof(struct scxl_opened, size), READONLY, "In bytes."},
	{"copies", T_UINT, offsetof(Region, opened) + offsetof(struct scxl_opened, copies), READONLY, "How many copies it has, healthy or not."},
	{NULL, 0, 0, 0, NULL},
};

static PyGetSetDef region_getters[] = {
	{"torn", region_torn, NULL, "The range that a dead writer left neither old nor new, as (offset, size), or None.", NULL},
	{"healthy", region_bitmap, NULL, "A bit for each copy that may be read.", (void *)offsetof(struct scxl_region, healthy)},
	{"joining", region_bitmap, NULL, "A bit for each copy that is being rebuilt.", (void *)offsetof(struct scxl_region, joining)},
	{"poisoned", region_bitmap, NULL, "A bit for each copy that has poison somewhere.", (void *)offsetof(struct scxl_region, poisoned)},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot region_slots[] = {
	{Py_tp_doc, "Region(directory, index, generation, sources, slot, slot_epoch): a region of the pool. From any thread."},
	{Py_tp_new, region_new},
	{Py_tp_dealloc, region_dealloc},
	{Py_tp_methods, region_methods},
	{Py_tp_members, region_members},
	{Py_tp_getset, region_getters},
	{0, NULL},
};
static PyType_Spec region_spec = {"softcxl.pool._native.Region", sizeof(Region), 0, Py_TPFLAGS_DEFAULT, region_slots};

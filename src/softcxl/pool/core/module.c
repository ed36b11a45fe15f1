/* SPDX-License-Identifier: Apache-2.0
 *
 * softcxl.pool._native: what softcxl_pool.h says, for Python. Words that are compared and swapped, rings, queues,
 * calls and regions, each with waiting that spins for a while and sleeps then. Stable ABI of Python 3.11.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "softcxl_region.h"

#define SLICE 100000000ll /* ns asleep between two looks at signals */
#define HELD 1500         /* ns of spinning with the interpreter's lock, which it takes about as long to hand over */
#define SPIN_MOST 50000   /* ns of spinning in all: what waking the other side costs here, twice */
#define SPIN_LEAST 1000   /* less is not worth it: then one sleeps at once */
#define TRIAL (SPIN_MOST + 1)
#define TRIED 64          /* one wait of so many that would sleep at once is given the most, to see */

/* -- errors -------------------------------------------------------------------------------------------------------- */

static PyObject *raised; /* a dict: result code to exception class */

static PyObject *fail(enum scxl_result code)
{
	PyObject *key = PyLong_FromLong(code), *kind = key && raised ? PyDict_GetItemWithError(raised, key) : NULL;

	if (kind)
		PyErr_SetNone(kind);
	else if (!PyErr_Occurred())
		PyErr_Format(PyExc_RuntimeError, "result %d of the pool's shared memory", (int)code);
	Py_XDECREF(key);
	return NULL;
}

static PyObject *set_errors(PyObject *module, PyObject *errors)
{
	(void)module;
	if (!PyDict_Check(errors)) {
		PyErr_SetString(PyExc_TypeError, "a dict of result codes and exception classes is needed");
		return NULL;
	}
	Py_XDECREF(raised);
	raised = Py_NewRef(errors);
	Py_RETURN_NONE;
}

/* -- time, spinning, sleeping -------------------------------------------------------------------------------------- */

static inline int64_t now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000ll + at.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Returns 0 where it was woken, or the word had changed; else errno. */
static int futex_wait(scxl_u32 *word, uint32_t value, int64_t ns)
{
	struct timespec left = {ns / 1000000000ll, ns % 1000000000ll};
	return syscall(SYS_futex, word, FUTEX_WAIT, value, &left, NULL, 0) ? errno : 0;
}

static long futex_wake(scxl_u32 *word, int count)
{
	return syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

typedef struct {
	PyObject_HEAD
	Py_buffer view;
	PyObject *ring; /* ring(offset): wakes those that sleep behind a device; NULL: there are none */
	PyObject *rest; /* rest(offset, seconds): sleeps until something is rung; NULL: a futex does it */
} Memory;

static PyObject *memory_type;

static uint64_t offset_of(const Memory *memory, const struct scxl_sleepers *one)
{
	return (uint64_t)((const uint8_t *)&one->waiting - (const uint8_t *)memory->view.buf);
}

/* What was done is done: who cannot be rung looks again by himself, sooner or later. */
static void ring_at(Memory *memory, uint64_t offset)
{
	PyObject *kind, *value, *trace, *result;

	PyErr_Fetch(&kind, &value, &trace);
	result = PyObject_CallFunction(memory->ring, "K", (unsigned long long)offset);
	if (!result)
		PyErr_WriteUnraisable(memory->ring);
	Py_XDECREF(result);
	PyErr_Restore(kind, value, trace);
}

static inline void wake(Memory *memory, struct scxl_sleepers *one)
{
	uint32_t how = scxl_wakes(one);

	/* Behind a device, futexes reach nobody but by its doorbell. */
	if (how & SCXL_SLEEPS_HERE && !memory->rest)
		futex_wake(&one->waiting, INT32_MAX);
	if (memory->ring && (memory->rest ? how : how & SCXL_SLEEPS_REMOTE))
		ring_at(memory, offset_of(memory, one));
}

/* A timeout of Python's, None for ever, as a point of time; -1 with an exception for what is none. */
static int64_t deadline_of(PyObject *timeout)
{
	double seconds;

	if (timeout == NULL || timeout == Py_None)
		return INT64_MAX;
	seconds = PyFloat_AsDouble(timeout);
	if (seconds == -1.0 && PyErr_Occurred())
		return -1;
	if (!(seconds >= 0)) {
		PyErr_SetString(PyExc_ValueError, "a timeout is 0 or more seconds, or None");
		return -1;
	}
	return seconds > 9e8 ? INT64_MAX : now() + (int64_t)(seconds * 1e9);
}

typedef enum scxl_result (*attempt)(void *);

/* The budget after a wait that had to sleep: half as much, at last nothing. Two that sleep for each other would go on
 * so for ever, though either would see the other's answer come if it only looked for as long as a wake takes: so now and
 * then one does, and what it then gains is what the other sees. */
static inline int32_t spin_less(int32_t spin)
{
	static _Thread_local unsigned waits;

	if (spin == 0 && ++waits % TRIED == 0)
		return TRIAL;
	return spin != TRIAL && spin / 2 >= SPIN_LEAST ? spin / 2 : 0;
}

/* Try until the result is neither EMPTY nor FULL, or the deadline (then that is returned). `spin` is the budget in ns,
 * adapted to whether spinning was worth it. -1 with an exception where a signal handler raised. */
static inline bool again(enum scxl_result result)
{
	return result == SCXL_EMPTY || result == SCXL_FULL || result == SCXL_BUSY;
}

/* Sleep behind a device, with the interpreter's lock. */
static int rest(Memory *memory, struct scxl_sleepers *sleepers, int64_t ns)
{
	PyObject *result = PyObject_CallFunction(memory->rest, "Kd", (unsigned long long)offset_of(memory, sleepers), ns / 1e9);

	Py_XDECREF(result);
	return result ? 0 : -1;
}

static int wait_for(attempt try, void *what, Memory *memory, struct scxl_sleepers *sleepers, int64_t deadline, int32_t *spin)
{
	const enum scxl_sleeping how = memory->rest ? SCXL_SLEEPS_REMOTE : SCXL_SLEEPS_HERE;
	int result = try(what);
	int64_t start, at;
	uint32_t waiting;

	if (!again(result))
		return result;
	if (deadline == 0)
		return result;
	start = at = now();
	while (*spin && at - start < HELD && at < deadline) {
		for (int i = 0; i < 16; i++) {
			relax();
			result = try(what);
			if (!again(result))
				return result;
		}
		at = now();
	}
	for (;;) {
		Py_BEGIN_ALLOW_THREADS
		while (at - start < *spin && at < deadline) {
			for (int i = 0; i < 16; i++) {
				relax();
				result = try(what);
				if (!again(result))
					goto spun;
			}
			at = now();
		}
		waiting = scxl_sleeps(sleepers, how);
		result = try(what);
		if (again(result) && at < deadline) {
			int64_t left = deadline - at < SLICE ? deadline - at : SLICE;
			int failed = 0;
			if (memory->rest) {
				Py_BLOCK_THREADS
				failed = rest(memory, sleepers, left);
				Py_UNBLOCK_THREADS
			} else {
				futex_wait(&sleepers->waiting, waiting, left);
			}
			result = try(what);
			if (failed)
				result = -1;
			*spin = spin_less(*spin);
			at = now();
			start = at - *spin;
		}
		goto through;
	spun:
		*spin = *spin * 2 < SPIN_MOST ? *spin * 2 : SPIN_MOST;
	through:;
		Py_END_ALLOW_THREADS
		if (!again(result) || at >= deadline)
			return result;
		if (PyErr_CheckSignals())
			return -1;
	}
}

/* -- Memory -------------------------------------------------------------------------------------------------------- */

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
	return PyLong_FromUnsignedLongLong(atomic_fetch_add(word, (uint64_t)by) + (uint64_t)by);
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
	atomic_thread_fence(memory_order_seq_cst);
	for (char *line = from - (uintptr_t)from % SCXL_LINE; line < from + size; line += SCXL_LINE)
		each(line);
	atomic_thread_fence(memory_order_seq_cst);
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

#include "ring.h"
#include "queue.h"
#include "calls.h"
#include "region.h"

/* -- module -------------------------------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
	{"set_errors", set_errors, METH_O, "set_errors(classes): which exception class each result code raises."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "softcxl.pool._native", "The pool's shared memory: words, rings, queues and calls.", -1, functions, NULL, NULL, NULL, NULL,
};

static int add(PyObject *module, const char *name, PyType_Spec *spec, PyObject **kept)
{
	PyObject *type = PyType_FromSpec(spec);

	if (!type)
		return -1;
	*kept = type;
	return PyModule_AddObjectRef(module, name, type);
}

PyMODINIT_FUNC PyInit__native(void)
{
	PyObject *module = PyModule_Create(&definition);

	if (!module || add(module, "Memory", &memory_spec, &memory_type) || add(module, "Ring", &ring_spec, &ring_type) ||
	    add(module, "Queue", &queue_spec, &queue_type) || add(module, "Caller", &caller_spec, &caller_type) ||
	    add(module, "Worker", &worker_spec, &worker_type) || add(module, "Region", &region_spec, &region_type) || PyModule_AddIntConstant(module, "VERSION", SCXL_VERSION))
		return NULL;
	return module;
}

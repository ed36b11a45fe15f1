/* SPDX-License-Identifier: Apache-2.0
 *
 * softcxl.pool._native: what softcxl_pool.h and its neighbours say, for Python. Words that are compared and swapped, rings, queues,
 * calls and regions, each with waiting that spins for a while and sleeps then. Stable ABI of Python 3.11.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "softcxl_calls.h"
#include "softcxl_region.h"

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

/* -- arguments ----------------------------------------------------------------------------------------------------- */

/* Bytes that Python hands over; held until they are let go. */
struct data {
	const void *bytes;
	Py_ssize_t length;
	Py_buffer view;
};

static inline bool data_get(PyObject *object, struct data *data)
{
	if (PyBytes_Check(object)) {
		data->view.obj = NULL;
		data->bytes = PyBytes_AsString(object);
		data->length = PyBytes_Size(object);
		return true;
	}
	if (PyObject_GetBuffer(object, &data->view, PyBUF_SIMPLE))
		return false;
	data->bytes = data->view.buf;
	data->length = data->view.len;
	return true;
}

static inline void data_release(struct data *data)
{
	if (data->view.obj)
		PyBuffer_Release(&data->view);
}

static bool counted(const char *name, Py_ssize_t count, Py_ssize_t least, Py_ssize_t most)
{
	if (count >= least && count <= most)
		return true;
	PyErr_Format(PyExc_TypeError, "%s takes %zd to %zd arguments, %zd were given", name, least, most, count);
	return false;
}

static inline bool kind_of(PyObject *object, uint32_t *kind)
{
	unsigned long value = PyLong_AsUnsignedLong(object);

	if (value == (unsigned long)-1 && PyErr_Occurred())
		return false;
	if (value > UINT32_MAX) {
		PyErr_Format(PyExc_OverflowError, "kind %lu: it has 32 bits", value);
		return false;
	}
	*kind = (uint32_t)value;
	return true;
}

/* (data, kind=0, timeout=None), as most that send have them. The data is to be released where this is true. */
static bool sent(const char *name, PyObject *const *args, Py_ssize_t count, struct data *data, uint32_t *kind, PyObject **timeout)
{
	*kind = 0;
	*timeout = count > 2 ? args[2] : NULL;
	return counted(name, count, 1, 3) && (count < 2 || kind_of(args[1], kind)) && data_get(args[0], data);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

#include "wait.h"
#include "memory.h"
#include "life.h"
#include "ring.h"
#include "queue.h"
#include "calls.h"
#include "worker.h"
#include "parts.h"
#include "ends.h"
#include "asking.h"
#include "region.h"

/* -- module -------------------------------------------------------------------------------------------------------- */

/* Whether this processor is QEMU's TCG, as far as it says so. */
static PyObject *emulated(PyObject *module, PyObject *nothing)
{
	bool found = false;

	(void)module;
	(void)nothing;
#if defined(__x86_64__)
	unsigned most, who[4] = {0}, brand[13] = {0};

	__cpuid(0x40000000u, most, who[0], who[1], who[2]);
	found = memcmp(who, "TCGTCGTCGTCG", 12) == 0;
	for (unsigned part = 0; __get_cpuid_max(0x80000000u, NULL) >= 0x80000004u && part < 3; part++)
		__cpuid(0x80000002u + part, brand[4 * part], brand[4 * part + 1], brand[4 * part + 2], brand[4 * part + 3]);
	found = found || strstr((char *)brand, "TCG");
#endif
	return PyBool_FromLong(found);
}

static PyMethodDef functions[] = {
	{"emulated", emulated, METH_NOARGS, "emulated(): whether this processor is QEMU's TCG, as far as it says so."},
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
	if (kept)
		*kept = type;
	return PyModule_AddObjectRef(module, name, type);
}

PyMODINIT_FUNC PyInit__native(void)
{
	PyObject *module = PyModule_Create(&definition);

	pthread_atfork(NULL, NULL, journal_is_free);
	if (!module || add(module, "Memory", &memory_spec, &memory_type) || add(module, "Ring", &ring_spec, &ring_type) ||
	    add(module, "Queue", &queue_spec, &queue_type) || add(module, "Caller", &caller_spec, &caller_type) ||
	    add(module, "Worker", &worker_spec, &worker_type) || add(module, "Region", &region_spec, &region_type) ||
	    add(module, "Life", &life_spec, &life_type) || add(module, "Sender", &sender_spec, NULL) ||
	    add(module, "Receiver", &receiver_spec, NULL) || add(module, "Exchanger", &exchanger_spec, NULL) ||
	    add(module, "Pointed", &pointed_spec, &pointed_type) ||
	    add(module, "Asking", &asking_spec, NULL) || PyModule_AddIntConstant(module, "VERSION", SCXL_VERSION))
		return NULL;
	return module;
}

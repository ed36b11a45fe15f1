/* SPDX-License-Identifier: Apache-2.0 */
/* The usual call from end to end with no frame of Python but the function's own: a client's function that is called, and a
 * worker that serves. What is unusual is handed to Python: see softcxl/pool/rpc.py and service.py. */

#define KIND_NUMBER 0xffffffu
#define KIND_PLAIN 0x1000000u /* positional arguments, encoded */
#define ANSWER_VALUE (ANSWER_MARKED | 1)
#define AT_ONCE 64 /* calls that are answered before threads of Python have their turn */

/* The exception that was raised, as an object. */
static PyObject *caught(void)
{
	PyObject *kind, *value, *trace;

	PyErr_Fetch(&kind, &value, &trace);
	PyErr_NormalizeException(&kind, &value, &trace);
	if (value && trace)
		PyException_SetTraceback(value, trace);
	Py_XDECREF(kind);
	Py_XDECREF(trace);
	return value;
}

/* Whether the exception that was raised is an ordinary one; then it is forgotten. */
static bool forgiven(void)
{
	if (!PyErr_ExceptionMatches(PyExc_Exception))
		return false;
	PyErr_Clear();
	return true;
}

/* -- a function of a service, as its client has it ----------------------------------------------------------------- */

typedef struct {
	PyObject_HEAD
	Caller *caller;
	Life *life;
	PyObject *encode, *decode, *timeout;
	uint32_t number;
} Asking;

static PyObject *asking_over(PyObject *object, PyObject *args)
{
	Asking *self = (Asking *)object;
	PyObject *caller, *life, *encode, *decode, *timeout;
	unsigned number;

	if (!PyArg_ParseTuple(args, "O!O!IOOO", life_type, &life, caller_type, &caller, &number, &encode, &decode, &timeout))
		return NULL;
	if (self->caller || number > KIND_NUMBER) {
		PyErr_SetString(PyExc_ValueError, "a function has one number, of 24 bits");
		return NULL;
	}
	self->life = (Life *)Py_NewRef(life);
	self->encode = Py_NewRef(encode);
	self->decode = Py_NewRef(decode);
	self->timeout = Py_NewRef(timeout);
	self->number = number;
	self->caller = (Caller *)Py_NewRef(caller);
	Py_RETURN_NONE;
}

static void asking_dealloc(PyObject *object)
{
	Asking *self = (Asking *)object;
	PyTypeObject *type = Py_TYPE(object);

	Py_XDECREF((PyObject *)self->caller);
	Py_XDECREF((PyObject *)self->life);
	Py_XDECREF(self->encode);
	Py_XDECREF(self->decode);
	Py_XDECREF(self->timeout);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
	Py_DECREF(type);
}

/* The result of a call whose answer has come: bytes as they are, a value decoded; what is neither is Python's to read. */
static PyObject *asking_read(Asking *self, PyObject *request, uint32_t kind, const struct call_poll *poll)
{
	PyObject *answer, *result, *error;

	if (poll->kind == ANSWER_VALUE) {
		answer = PyBytes_FromStringAndSize((char *)scxl_call_bytes(scxl_call_at(&self->caller->table, poll->note.cell)), poll->length);
		caller_free(self->caller, &poll->note);
		result = answer ? PyObject_CallFunctionObjArgs(self->decode, answer, NULL) : NULL;
		if (!result && answer && forgiven()) {
			error = Py_BuildValue("OI", answer, poll->kind);
			result = error ? PyObject_CallMethod((PyObject *)self, "_answered", "OIN", request, kind, error) : NULL;
		}
		Py_XDECREF(answer);
		return result;
	}
	answer = caller_take(self->caller, poll);
	if (!answer || PyBytes_CheckExact(answer))
		return answer;
	return PyObject_CallMethod((PyObject *)self, "_answered", "OIN", request, kind, answer);
}

static PyObject *asking_ask(Asking *self, PyObject *request, uint32_t kind, bool *asked)
{
	struct call_poll poll = {.table = &self->caller->table};
	struct until until = {.span = span_of(self->timeout)};
	bool raised_;
	int result;
	PyObject *error;

	*asked = true;
	if (until.span < 0)
		return NULL;
	result = caller_ask(self->caller, PyBytes_AsString(request), (uint32_t)PyBytes_Size(request), kind, &poll.note, NULL, &raised_);
	if (result == SCXL_FULL) {
		*asked = false;
		return NULL;
	}
	if (result == SCXL_OK) {
		caller_rest();
		result = caller_wait(self->caller, &poll, &until);
		if (result == SCXL_OK)
			return asking_read(self, request, kind, &poll);
		/* A timeout, a signal, a worker that died: nobody waits for it any more. */
		scxl_call_free(&self->caller->table, poll.note.cell, poll.note.number);
	}
	if (result < 0)
		return NULL;
	fail(result);
	error = caught();
	return error ? PyObject_CallMethod((PyObject *)self, "_failed", "OIN", request, kind, error) : NULL;
}

static PyObject *asking_call(PyObject *object, PyObject *args, PyObject *kwargs)
{
	Asking *self = (Asking *)object;
	PyObject *request = NULL, *result = NULL, *empty;
	uint32_t kind = self->number;
	bool asked = false;

	if (self->caller && !(kwargs && PyDict_Size(kwargs)) && lives(self->life)) {
		if (PyTuple_Size(args) == 1 && PyBytes_CheckExact(PyTuple_GetItem(args, 0))) {
			request = Py_NewRef(PyTuple_GetItem(args, 0));
		} else if ((request = PyObject_CallFunctionObjArgs(self->encode, args, NULL))) {
			kind |= KIND_PLAIN;
		} else if (!forgiven()) {
			return NULL;
		}
		if (request && PyBytes_CheckExact(request) && PyBytes_Size(request) <= (Py_ssize_t)(self->caller->table.stride - SCXL_CELL_HEADER))
			result = asking_ask(self, request, kind, &asked);
		Py_XDECREF(request);
	}
	if (asked)
		return result;
	empty = kwargs ? Py_NewRef(kwargs) : PyDict_New();
	return empty ? PyObject_CallMethod(object, "_slow", "ON", args, empty) : NULL;
}

static PyMethodDef asking_methods[] = {
	{"_over", asking_over, METH_VARARGS, "_over(life, caller, number, encode, decode, timeout): call the function of that number so."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot asking_slots[] = {
	{Py_tp_doc, "A function of a service: to be called. What is derived from it has _slow, _answered and _failed."},
	{Py_tp_new, part_new},
	{Py_tp_dealloc, asking_dealloc},
	{Py_tp_call, asking_call},
	{Py_tp_methods, asking_methods},
	{0, NULL},
};
static PyType_Spec asking_spec = {"softcxl.pool._native.Asking", sizeof(Asking), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, asking_slots};

/* -- a worker that serves ------------------------------------------------------------------------------------------ */

enum served { SERVED_REQUEST, SERVED_RESULT, SERVED_FAILURE };

static PyObject *served(enum served what, PyObject *value)
{
	return value ? Py_BuildValue("iN", what, value) : NULL;
}

/* Call the function that a request is for. NULL without an exception: it is Python's to read. */
static PyObject *worker_run(PyObject *functions, uint32_t kind, PyObject *request)
{
	PyObject *number = PyLong_FromUnsignedLong(kind & KIND_NUMBER), *entry, *function, *decode, *arguments, *result = NULL;

	entry = number ? PyDict_GetItemWithError(functions, number) : NULL;
	Py_XDECREF(number);
	if (!entry || !PyTuple_Check(entry) || PyTuple_Size(entry) != 3)
		return NULL;
	function = PyTuple_GetItem(entry, 0);
	decode = PyTuple_GetItem(entry, 1);
	Py_INCREF(entry);
	if (kind <= KIND_NUMBER && PyObject_IsTrue(PyTuple_GetItem(entry, 2)) == 1) {
		result = PyObject_CallFunctionObjArgs(function, request, NULL);
	} else if ((kind & ~KIND_NUMBER) == KIND_PLAIN && decode != Py_None) {
		arguments = PyObject_CallFunctionObjArgs(decode, request, NULL);
		if (arguments && PyTuple_Check(arguments))
			result = PyObject_CallObject(function, arguments);
		else if (!arguments)
			forgiven(); /* it is read once more, which says what is wrong with it */
		Py_XDECREF(arguments);
	}
	Py_DECREF(entry);
	return result;
}

static PyObject *worker_serve(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
	Worker *self = (Worker *)object;

	if (!counted("serve", count, 2, 3))
		return NULL;
	if (!PyDict_Check(args[0])) {
		PyErr_SetString(PyExc_TypeError, "a dict of functions is needed");
		return NULL;
	}
	for (int turn = 0; turn < AT_ONCE; turn++) {
		PyObject *request = worker_request(self, count > 2 ? args[2] : NULL), *result, *encoded;
		enum scxl_result put = SCXL_TOO_LONG;

		if (!request)
			return NULL;
		result = worker_run(args[0], self->kind, request);
		if (!result) {
			if (!PyErr_Occurred())
				return served(SERVED_REQUEST, request);
			Py_DECREF(request);
			return served(SERVED_FAILURE, caught());
		}
		Py_DECREF(request);
		if (PyBytes_CheckExact(result)) {
			put = worker_put(self, &self->core.note, PyBytes_AsString(result), PyBytes_Size(result), 0);
		} else if (!PyObject_CheckBuffer(result)) {
			encoded = PyObject_CallFunctionObjArgs(args[1], result, NULL);
			if (encoded && PyBytes_CheckExact(encoded))
				put = worker_put(self, &self->core.note, PyBytes_AsString(encoded), PyBytes_Size(encoded), ANSWER_VALUE);
			else if (!encoded && !forgiven()) { /* encoded once more, it says what cannot be sent */
				Py_DECREF(result);
				return served(SERVED_FAILURE, caught());
			}
			Py_XDECREF(encoded);
		}
		if (put == SCXL_TOO_LONG)
			return served(SERVED_RESULT, result);
		Py_DECREF(result);
	}
	Py_RETURN_NONE;
}

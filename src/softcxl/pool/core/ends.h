/* SPDX-License-Identifier: Apache-2.0 */
/* The ends of channels, for Python: what sends by a ring, what receives by one, and who puts to a queue and gets from it. */

#define PART_SLOTS(name) \
	{Py_tp_new, part_new}, {Py_tp_dealloc, part_dealloc}, {Py_tp_methods, name##_methods}, {0, NULL}
#define REFERS {"_refers", part_refers, METH_VARARGS, "_refers(weak, life, index, generation, size): the region that is referred to now."}
#define OPENS {"_opens", part_opens, METH_VARARGS, "_opens(lent, index, generation, size, record, reference): what references are to now."}
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

static PyObject *sender_refer(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	return part_refer(self, args, count, names, sender_try, "_send_reference");
}

static PyObject *on_ring(PyObject *self, PyObject *args)
{
	return part_take(self, args, ring_type);
}

static PyMethodDef sender_methods[] = {
	{"_over", on_ring, METH_VARARGS, "_over(life, ring): send by that ring."},
	REFERS,
	{"send", FAST(sender_send), METH_FASTCALL | METH_KEYWORDS,
	 "send($self, data, kind=0, timeout=None)\n--\n\n"
	 "Append a record: any bytes. Waits while there is no room; with `timeout=0` it does not.\n\n"
	 "Raises `Full` where there is no room in time, `Closed` where there is none and the consumer has gone,\n`TooLong` for what the ring can never hold."},
	{"send_reference", FAST(sender_refer), METH_FASTCALL | METH_KEYWORDS,
	 "send_reference($self, region, offset=0, size=None, *, give=False, kind=0, timeout=None)\n--\n\n"
	 "Send where bytes of a region are, and not the bytes.\n\n"
	 "Lent, the region stays yours, to keep until the receiver needs it no more. Given (`give=True`; a region of\n"
	 "your own without a name) it is the channel's as soon as this returns, and then that of who receives it: it is\n"
	 "freed when he does so or dies, and where nobody receives it when the channel goes. Raises as `send` does, and\n"
	 "`Denied` for what cannot be given."},
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

static PyObject *receiver_record(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	return part_receive_record(self, args, count, names, receiver_try, "_receive_record");
}

static PyMethodDef receiver_methods[] = {
	{"_over", on_ring, METH_VARARGS, "_over(life, ring): receive by that ring."},
	OPENS,
	{"receive", FAST(receiver_receive), METH_FASTCALL | METH_KEYWORDS,
	 "receive($self, timeout=None)\n--\n\n"
	 "The next record's bytes; of a reference, what it refers to. With `timeout=0` it does not wait.\n\n"
	 "Raises `Empty` where nothing comes in time, `Closed` where the producer has gone and all of his is taken."},
	{"receive_record", FAST(receiver_record), METH_FASTCALL | METH_KEYWORDS,
	 "receive_record($self, timeout=None)\n--\n\n"
	 "The next record, with its kind; a reference as such. Raises as `receive` does."},
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

static PyObject *exchanger_refer(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	return part_refer(self, args, count, names, exchanger_try_put, "_put_reference");
}

static PyObject *exchanger_record(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	return part_receive_record(self, args, count, names, exchanger_try_get, "_get_record");
}

static PyObject *on_queue(PyObject *self, PyObject *args)
{
	return part_take(self, args, queue_type);
}

static PyMethodDef exchanger_methods[] = {
	{"_over", on_queue, METH_VARARGS, "_over(life, queue): put and get by that queue."},
	REFERS,
	OPENS,
	{"put", FAST(exchanger_put), METH_FASTCALL | METH_KEYWORDS,
	 "put($self, data, kind=0, timeout=None)\n--\n\n"
	 "Append a record: any bytes. Waits while there is no room; with `timeout=0` it does not.\n\n"
	 "Raises `Full` where there is no room in time, `Closed` where the queue was finished, `TooLong`."},
	{"get", FAST(exchanger_get), METH_FASTCALL | METH_KEYWORDS,
	 "get($self, timeout=None)\n--\n\n"
	 "Take the next record's bytes; of a reference, what it refers to. With `timeout=0` it does not wait.\n\n"
	 "Raises `Empty` where nothing comes in time, `Closed` where the queue was finished and all is taken."},
	{"put_reference", FAST(exchanger_refer), METH_FASTCALL | METH_KEYWORDS,
	 "put_reference($self, region, offset=0, size=None, *, give=False, kind=0, timeout=None)\n--\n\n"
	 "Put where bytes of a region are, and not the bytes. See `Producer.send_reference`."},
	{"get_record", FAST(exchanger_record), METH_FASTCALL | METH_KEYWORDS,
	 "get_record($self, timeout=None)\n--\n\n"
	 "Take the next record, with its kind; a reference as such. Raises as `get` does."},
	{NULL, NULL, 0, NULL},
};
static PyType_Slot exchanger_slots[] = {{Py_tp_doc, "What puts and gets records by a queue."}, PART_SLOTS(exchanger)};
PART_SPEC(exchanger, "Exchanger");

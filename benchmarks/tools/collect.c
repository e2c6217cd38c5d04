/* Tells callgrind what to count: all from zero() to dump(), or of that what runs inside of one Python function.
   Built by benchmarks/tools/callgrind.py; does nothing outside of valgrind. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <valgrind/callgrind.h>

typedef struct {
    PyObject_HEAD
    PyObject *function;
    vectorcallfunc vectorcall;
} Counted;

static PyObject *counted_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    CALLGRIND_TOGGLE_COLLECT;
    PyObject *result = PyObject_Vectorcall(((Counted *)self)->function, args, nargsf, names);
    CALLGRIND_TOGGLE_COLLECT;
    return result;
}

static PyObject *counted_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *function;
    if (!PyArg_ParseTuple(args, "O", &function))
        return NULL;
    Counted *self = (Counted *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->function = Py_NewRef(function);
        self->vectorcall = counted_call;
    }
    return (PyObject *)self;
}

static void counted_dealloc(PyObject *self)
{
    Py_XDECREF(((Counted *)self)->function);
    Py_TYPE(self)->tp_free(self);
}

/* As a function does it: a method of the object that it is looked up on. */
static PyObject *counted_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    return object == NULL || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

static PyMemberDef counted_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Counted, vectorcall), READONLY, NULL},
    {NULL},
};

static PyType_Slot counted_slots[] = {
    {Py_tp_new, counted_new},
    {Py_tp_dealloc, counted_dealloc},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, counted_get},
    {Py_tp_members, counted_members},
    {0, NULL},
};

static PyType_Spec counted_spec = {
    .name = "collect.Counted",
    .basicsize = sizeof(Counted),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = counted_slots,
};

static PyObject *instrument(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(args))
{
    CALLGRIND_START_INSTRUMENTATION;
    Py_RETURN_NONE;
}

static PyObject *toggle(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(args))
{
    CALLGRIND_TOGGLE_COLLECT;
    Py_RETURN_NONE;
}

static PyObject *zero(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(args))
{
    CALLGRIND_ZERO_STATS;
    Py_RETURN_NONE;
}

static PyObject *dump(PyObject *Py_UNUSED(self), PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    if (text == NULL)
        return NULL;
    CALLGRIND_DUMP_STATS_AT(text);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"instrument", instrument, METH_NOARGS, "Begin to count; slow from here on."},
    {"toggle", toggle, METH_NOARGS, "Count, or count no more, on this thread."},
    {"zero", zero, METH_NOARGS, "Forget what was counted."},
    {"dump", dump, METH_O, "Write what was counted, under a name."},
    {NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "collect", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit_collect(void)
{
    PyObject *made = PyModule_Create(&module);
    PyObject *type = PyType_FromSpec(&counted_spec);
    if (made == NULL || type == NULL || PyModule_AddObject(made, "Counted", type) < 0)
        return NULL;
    return made;
}

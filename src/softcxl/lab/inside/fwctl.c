/*
 * fwctl: asks a device's firmware by the kernel's fwctl, for features of CXL. Needs no C library; builds with gcc and tcc.
 *
 *   fwctl FILE SCOPE OPCODE PAYLOAD [ROOM]
 *
 * FILE is such as /dev/fwctl/fwctl0, SCOPE 0 to 3 (configuration, debug: read only, write, write all), OPCODE a number,
 * PAYLOAD hexadecimal bytes, and ROOM how many bytes of the answer are asked for: 4096 if it is not said. Prints the
 * device's return code, a space, and the answer in hexadecimal. Status 1: the kernel did not ask, and a minus and its
 * error number are printed. Status 2: wrong usage.
 */
#define PROGRAM "fwctl"
#include "bare.h"

/* include/uapi/fwctl/fwctl.h: struct fwctl_rpc, FWCTL_RPC; include/uapi/fwctl/cxl.h: what goes in and out */
struct rpc {
    unsigned size, scope, in_len, out_len;
    u64 in, out;
};
struct head_in {
    unsigned opcode, flags, op_size, reserved;
};
struct head_out {
    unsigned size, retval;
};
enum { RPC = 0x9A01, ROOM = 4096, LARGEST = 1 << 16 };

static struct {
    struct head_in head;
    unsigned char payload[LARGEST];
} in;
static struct {
    struct head_out head;
    unsigned char payload[LARGEST];
} out;
static char text[2 * LARGEST + 1];

void start(u64 *stack)
{
    struct rpc rpc;
    u64 count = stack[0], room;
    char **word = (char **)(stack + 1);
    long file, error;
    if (count < 5 || count > 6)
        fail("usage: FILE SCOPE OPCODE PAYLOAD [ROOM]");
    memset(&rpc, 0, sizeof rpc);
    in.head.opcode = number(word[3]);
    in.head.op_size = bytes(word[4], in.payload, LARGEST);
    room = count > 5 ? number(word[5]) : ROOM;
    if (room > LARGEST)
        fail("there is no room for an answer so long");
    rpc.size = sizeof rpc;
    rpc.scope = number(word[2]);
    rpc.in_len = sizeof in.head + in.head.op_size;
    rpc.out_len = sizeof out.head + room;
    rpc.in = (u64)&in;
    rpc.out = (u64)&out;
    file = sys(SYS_OPEN, (u64)word[1], O_RDWR_, 0, 0, 0, 0);
    if (file < 0)
        fail("the file cannot be opened");
    error = sys(SYS_IOCTL, file, RPC, (u64)&rpc, 0, 0, 0);
    if (error < 0) {
        say(1, "-");
        say_number(1, -error, 10);
        say(1, "\n");
        leave(1);
    }
    say_number(1, out.head.retval, 10);
    say(1, " ");
    say_bytes(1, out.payload, out.head.size < room ? out.head.size : room, text);
    say(1, "\n");
    leave(0);
}

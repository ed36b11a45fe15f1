/*
 * cci: gives a switch any command through its mailbox CCI, whose registers it maps: no driver of the kernel does. Needs no
 * C library; builds with gcc and tcc.
 *
 *   cci FOLDER OPCODE [PAYLOAD]
 *
 * FOLDER is the function's, such as /sys/bus/pci/devices/0000:0e:00.0, OPCODE a number, PAYLOAD hexadecimal bytes. Prints
 * the return code, a space, and the answer in hexadecimal. Any function with a mailbox that no driver has will do. Status
 * 1: the mailbox did not answer within 10 s. Status 2: wrong usage, or there is no mailbox.
 */
#define PROGRAM "cci"
#include "bare.h"
#include "function.h"

static u8 payload[MAILBOX_ROOM];
static char text[2 * MAILBOX_ROOM + 1];

void start(u64 *stack)
{
    u64 count = stack[0], size;
    char **word = (char **)(stack + 1);
    volatile u8 *mailbox;
    long code;
    if (count < 3 || count > 4)
        fail("usage: FOLDER OPCODE [PAYLOAD]");
    size = count > 3 ? bytes(word[3], payload, MAILBOX_ROOM) : 0;
    mailbox = mailbox_in(registers(word[1], DEVICE_BLOCK), PRIMARY);
    if (!mailbox)
        fail("the device registers have no mailbox");
    code = command_by(mailbox, number(word[2]), payload, &size);
    if (code < 0) {
        say(1, "-110\n");
        leave(1);
    }
    say_number(1, code, 10);
    say(1, " ");
    say_bytes(1, payload, size, text);
    say(1, "\n");
    leave(0);
}

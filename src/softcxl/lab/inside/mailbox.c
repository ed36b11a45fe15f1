/*
 * mailbox: gives a memory device any command, by the kernel's raw commands. Needs no C library; builds with gcc and tcc.
 *
 *   mailbox FILE OPCODE [PAYLOAD [ROOM]]
 *
 * FILE is such as /dev/cxl/mem0, OPCODE a number, PAYLOAD hexadecimal bytes, "" none, and ROOM how many bytes of the
 * answer are asked for: 4096 if it is not said. Prints the return code, a space, and the answer in hexadecimal.
 * Status 1: the kernel did not give the command, and its error number is printed; it needs CONFIG_CXL_MEM_RAW_COMMANDS,
 * and takes commands that its own drivers use only after `echo Y > /sys/kernel/debug/cxl/mbox/raw_allow_all`.
 * Status 2: wrong usage.
 */
#define PROGRAM "mailbox"
#include "bare.h"

/* include/uapi/linux/cxl_mem.h: struct cxl_send_command, CXL_MEM_SEND_COMMAND, the kernel's number for raw ones */
struct send_command {
    unsigned id, flags;
    unsigned short opcode, reserved;
    unsigned result;
    int in_size;
    unsigned in_reserved;
    u64 in_payload;
    int out_size;
    unsigned out_reserved;
    u64 out_payload;
};
enum { SEND_COMMAND = 0xC030CE02U, RAW = 2, ROOM = 4096, LARGEST = 1 << 20 };

static unsigned char payload[LARGEST], answer[LARGEST];
static char text[2 * LARGEST + 1];

void start(u64 *stack)
{
    struct send_command command;
    u64 count = stack[0];
    char **word = (char **)(stack + 1);
    long file, error;
    if (count < 3 || count > 5)
        fail("usage: FILE OPCODE [PAYLOAD [ROOM]]");
    memset(&command, 0, sizeof command);
    command.id = RAW;
    command.opcode = number(word[2]);
    command.in_size = count > 3 ? bytes(word[3], payload, LARGEST) : 0;
    command.in_payload = (u64)payload;
    command.out_size = count > 4 ? number(word[4]) : ROOM;
    command.out_payload = (u64)answer;
    if (command.out_size < 0 || command.out_size > LARGEST)
        fail("there is no room for an answer so long");
    file = sys(SYS_OPEN, (u64)word[1], O_RDWR_, 0, 0, 0, 0);
    if (file < 0)
        fail("the file cannot be opened");
    error = sys(SYS_IOCTL, file, SEND_COMMAND, (u64)&command, 0, 0, 0);
    if (error < 0) {
        say(1, "-");
        say_number(1, -error, 10);
        say(1, "\n");
        leave(1);
    }
    say_number(1, command.result, 10);
    say(1, " ");
    say_bytes(1, answer, command.result ? 0 : command.out_size, text);
    say(1, "\n");
    leave(0);
}

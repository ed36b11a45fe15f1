/*
 * key: puts a key into the kernel's keyring of this user. Needs no C library; builds with gcc and tcc.
 *
 *   key add TYPE DESCRIPTION PAYLOAD    as keyctl(1) with @u; prints the key's number
 *   key find TYPE DESCRIPTION           prints its number
 *   key forget NUMBER                   takes it out of the keyring
 *
 * Types are those of the kernel: user, encrypted, and so on. Status 2: wrong usage, or the kernel refuses.
 */
#define PROGRAM "key"
#include "bare.h"

enum { SYS_ADD_KEY = 248, SYS_KEYCTL = 250, UNLINK = 9, SEARCH = 10 };

#define USER_KEYRING ((u64)-4)

static void tell(long key)
{
    if (key < 0)
        fail(key == -126 ? "there is no such key" : "the kernel refuses");
    say_number(1, key, 10);
    say(1, "\n");
    leave(0);
}

void start(u64 *stack)
{
    u64 count = stack[0];
    char **word = (char **)(stack + 1);
    if (count == 5 && same(word[1], "add"))
        tell(sys(SYS_ADD_KEY, (u64)word[2], (u64)word[3], (u64)word[4], length(word[4]), USER_KEYRING, 0));
    if (count == 4 && same(word[1], "find"))
        tell(sys(SYS_KEYCTL, SEARCH, USER_KEYRING, (u64)word[2], (u64)word[3], 0, 0));
    if (count == 3 && same(word[1], "forget")) {
        if (sys(SYS_KEYCTL, UNLINK, number(word[2]), USER_KEYRING, 0, 0, 0) < 0)
            fail("there is no such key");
        leave(0);
    }
    fail("usage: add TYPE DESCRIPTION PAYLOAD, find TYPE DESCRIPTION, or forget NUMBER");
}

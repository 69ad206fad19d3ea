; maqet-wake: puts a guest right that resumes from a frozen state, where the clock stands still and random
; numbers would come again.
;
;   nasm -f bin maqet-wake.asm -o maqet-wake
;
;   maqet-wake PORT      serves messages from a virtio serial port for ever
;   maqet-wake --once    serves one message: from standard input, answered on standard output
;
; A message, numbers in little-endian:           The answer:
;    0  4  "MQW1", the last being the version       0  8  the message's first 8 bytes
;    4  4  a number that the host chooses           8  1  setting the clock: 0, or the errno
;    8  8  seconds since 1970, signed               9  1  reseeding: 0, or the errno
;   16  4  nanoseconds
;   20  4  makes the sum of all 4-byte words 0
;   24 64  seed; all zeros: no reseeding
;
; What is no message is skipped byte by byte; what is left of one that a host did not finish is told by the sum
; from a message that follows, and dropped after a second or when the guest sees the host hang up.
; A Linux program without libc, /proc or memory of its own but the stack; exit status 0 when the port is
; unplugged or the one message was answered, 1 when there is no port or no message, 2 for wrong usage.
;
; Facts: Linux drivers/char/random.c. Writing to /dev/urandom only mixes; what is read changes with the next
; reseed, RNDRESEEDCRNG, and before 5.17 that takes nothing from a pool to which nobody credits entropy. So
; RNDADDENTROPY (mix and credit; random(4)) comes first: the seed is the host's own randomness.
; drivers/char/virtio_console.c. While no host is connected read returns 0 at once and poll tells of data, so
; neither can wait for one; but the driver sends SIGIO when the host connects. And elf(5), syscalls(2).

        bits 64
        cpu x64
        org 0x400000

SYS_READ            equ 0
SYS_WRITE           equ 1
SYS_OPEN            equ 2
SYS_POLL            equ 7
SYS_RT_SIGPROCMASK  equ 14
SYS_IOCTL           equ 16
SYS_GETPID          equ 39
SYS_EXIT            equ 60
SYS_FCNTL           equ 72
SYS_RT_SIGTIMEDWAIT equ 128
SYS_CLOCK_SETTIME   equ 227

O_WRONLY        equ 1
O_RDWR          equ 2
O_NOCTTY        equ 0x100
O_ASYNC         equ 0x2000
F_SETFL         equ 4
F_SETOWN        equ 8
SIGIO           equ 29
POLLIN          equ 1
EINTR           equ 4
ENODEV          equ 19
CLOCK_REALTIME  equ 0
RNDRESEEDCRNG   equ 0x5207
RNDADDENTROPY   equ 0x40085203  ; takes: 4 bytes bits of entropy, 4 bytes length, data

; The message, at the stack pointer.
TIME    equ 8
NANOS   equ 16
SEED    equ 24
SEED_BYTES equ 64
LENGTH  equ SEED + SEED_BYTES
ANSWER  equ 10
POLLFD  equ 96                  ; behind it: a struct pollfd

; Registers: ebx is read from, r13d written to; r12d is 1 for one message only; r15d bytes are there.

file:   db 0x7f, "ELF", 2, 1, 1, 0      ; 64 bits, little-endian, System V
        dq 0
        dw 2, 62                        ; ET_EXEC, x86-64
        dd 1
        dq start, headers - file, 0
        dd 0
        dw 64, 56, 2, 64, 0, 0
headers:
        dd 1, 5                         ; PT_LOAD, read and execute: the whole file
        dq 0, file, file, end - file, end - file, 0x1000
        dd 0x6474e551, 6                ; PT_GNU_STACK, read and write
        dq 0, 0, 0, 0, 0, 16

magic:  db "MQW1"
source: db "/dev/urandom", 0
usage:  db "usage: maqet-wake PORT | --once", 10
USAGE   equ $ - usage
no_port: db "maqet-wake: the port cannot be opened", 10
NO_PORT equ $ - no_port
        align 8
signals: dq 1 << (SIGIO - 1)
second: dq 1, 0                         ; struct timespec

start:  pop rax                         ; argc; argv is at the stack pointer
        mov rdi, [rsp + 8]
        sub rsp, 128
        cmp eax, 2
        jne wrong
        mov rbp, rdi
        mov eax, SYS_OPEN               ; kept open: in a guest that just went on, each system call is dear
        mov rdi, source
        mov esi, O_WRONLY
        syscall
        mov r14d, eax
        mov rdi, rbp
        xor r15d, r15d
        xor r12d, r12d
        cmp dword [rdi], "--on"
        jne port
        cmp dword [rdi + 3], "nce"      ; and the zero at its end
        jne port
        inc r12d
        xor ebx, ebx
        mov r13d, 1
        jmp read

port:   mov eax, SYS_OPEN
        mov esi, O_RDWR | O_NOCTTY
        syscall
        test eax, eax
        js refused
        mov ebx, eax
        mov r13d, eax
; SIGIO stays blocked and pending, for rt_sigtimedwait to take.
        mov eax, SYS_RT_SIGPROCMASK
        xor edi, edi                    ; SIG_BLOCK
        mov esi, signals
        xor edx, edx
        mov r10d, 8
        syscall
        mov eax, SYS_GETPID
        syscall
        mov edx, eax
        mov eax, SYS_FCNTL
        mov edi, ebx
        mov esi, F_SETOWN
        syscall
        mov eax, SYS_FCNTL
        mov esi, F_SETFL
        mov edx, O_ASYNC
        syscall

next:   test r15d, r15d
        jz read
        test r12d, r12d
        jnz read
; The rest of a message does not keep anybody waiting for more than a second.
        mov [rsp + POLLFD], ebx
        mov dword [rsp + POLLFD + 4], POLLIN
        mov eax, SYS_POLL
        lea rdi, [rsp + POLLFD]
        mov esi, 1
        mov edx, 1000
        syscall
        test eax, eax
        jnz read
        xor r15d, r15d
read:   xor eax, eax
        mov edi, ebx
        lea rsi, [rsp + r15]
        mov edx, LENGTH
        sub edx, r15d
        syscall
        test eax, eax
        jg got
        cmp eax, -EINTR
        je next
        test r12d, r12d
        jnz nothing
        xor edi, edi
        cmp eax, -ENODEV
        je exit
; Nobody is connected. The time limit is only for a driver that sends no signal.
        xor r15d, r15d
        mov eax, SYS_RT_SIGTIMEDWAIT
        mov edi, signals
        xor esi, esi
        mov edx, second
        mov r10d, 8
        syscall
        jmp read

got:    add r15d, eax
look:   mov ecx, 4
        cmp r15d, ecx
        cmovb ecx, r15d
        jecxz read
        mov rsi, magic
        mov rdi, rsp
        repe cmpsb
        je alike
drop:   dec r15d
        mov ecx, r15d
        lea rsi, [rsp + 1]
        mov rdi, rsp
        rep movsb
        jmp look
alike:  cmp r15d, LENGTH
        jb next
        xor eax, eax
        mov ecx, LENGTH / 4
sum:    add eax, [rsp + rcx * 4 - 4]
        loop sum
        test eax, eax
        jnz drop

        xor r15d, r15d
        mov [rsp + NANOS + 4], eax      ; the kernel wants 8 bytes of nanoseconds
        mov eax, SYS_CLOCK_SETTIME
        xor edi, edi                    ; CLOCK_REALTIME
        lea rsi, [rsp + TIME]
        syscall
        neg eax
        mov r9d, eax                    ; errno of the clock
        xor r8d, r8d                    ; errno of reseeding
        lea rdi, [rsp + SEED]
        mov ecx, SEED_BYTES / 8
        xor eax, eax
        repe scasq
        je answer

        mov eax, r14d
        neg eax
        jg no_source
        mov dword [rsp + NANOS], SEED_BYTES * 8
        mov dword [rsp + NANOS + 4], SEED_BYTES
        mov eax, SYS_IOCTL
        mov edi, r14d
        mov esi, RNDADDENTROPY
        lea rdx, [rsp + NANOS]
        syscall
        test eax, eax
        jz reseed
        mov eax, SYS_WRITE              ; anybody may mix
        mov edi, r14d
        lea rsi, [rsp + SEED]
        mov edx, SEED_BYTES
        syscall
reseed: mov eax, SYS_IOCTL
        mov edi, r14d
        mov esi, RNDRESEEDCRNG
        xor edx, edx
        syscall
        neg eax
no_source:
        mov r8d, eax
forget: lea rdi, [rsp + SEED]
        mov ecx, SEED_BYTES / 8
        xor eax, eax
        rep stosq

answer: mov [rsp + 8], r9b
        mov [rsp + 9], r8b
        mov eax, SYS_WRITE
        mov edi, r13d
        mov rsi, rsp
        mov edx, ANSWER
        syscall
        xor edi, edi
        test r12d, r12d
        jz read
exit:   mov eax, SYS_EXIT
        syscall

nothing:
        mov edi, 1
        jmp exit

wrong:  mov esi, usage
        mov edx, USAGE
        mov ebx, 2
        jmp complain
refused:
        mov esi, no_port
        mov edx, NO_PORT
        mov ebx, 1
complain:
        mov eax, SYS_WRITE
        mov edi, 2
        syscall
        mov edi, ebx
        jmp exit
end:

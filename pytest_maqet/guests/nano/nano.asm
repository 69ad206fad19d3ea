; builtin:nano: a whole guest in one boot sector, for tests of a machine's life.
;
;   nasm -f bin nano.asm -o nano.img
;
; On the first serial port it says "maqet nano: guest ready" and then answers lines:
;   poweroff    powers off                       reset     resets the machine
;   panic       says so on the console, tells QEMU by pvpanic, and halts
;   flood N     writes N lines, numbered in hexadecimal from N-1 down to 0 (N: decimal, at most 65535)
;   any other   comes back after "echo: "
; The ACPI power button powers off. Between interrupts (serial port, ACPI, the 18.2 Hz timer) it halts, so it
; costs a host next to nothing.
;
; Facts: 16550 UART registers; Intel ICH9 (PMBASE 0x40, ACPI_CNTL 0x44) and PIIX4 (PMBA 0x40, PMREGMISC 0x80)
; data sheets; ACPI specification, 4.8.3 (PM1 registers; S5's sleep type is 0 on QEMU's boards); QEMU
; docs/specs/pvpanic: port 0x505, bit 0 is "panicked".

        bits 16
        cpu 386
        org 0x7c00

COM1    equ 0x3f8
LINE    equ 0x7e00              ; where the line is kept while it is typed
LIMIT   equ 0x8000              ; what does not fit is dropped
PWRBTN  equ 1 << 8              ; in PM1 status and PM1 enable
SLP_EN  equ 1 << 13             ; in PM1 control

        jmp 0:start
start:  cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        mov word [0x0c * 4], ignore     ; IRQ 4, COM1: only ends the halt
        mov word [0x0c * 4 + 2], ax
        mov word [0x71 * 4], power_off  ; IRQ 9, ACPI: nothing but the power button is enabled
        mov word [0x71 * 4 + 2], ax

; Where the power management registers are: 0 if there are none. The firmware has given them their place.
        mov eax, 0x8000f800             ; PCI 00:1f.0: q35's ICH9
        call config_read
        cmp eax, 0x29188086
        mov ebx, 0x8000f840
        je found
        mov eax, 0x80000b00             ; PCI 00:01.3: pc's PIIX4
        call config_read
        cmp eax, 0x71138086
        mov ebx, 0x80000b40
        jne no_pm
found:  mov eax, ebx
        call config_read
        and ax, 0xff80
        mov [pm], ax
        xchg ax, dx
        add dx, 2                       ; PM1 enable
        mov ax, PWRBTN
        out dx, ax
no_pm:
        in al, 0x21
        and al, 0xff - (1 << 4) - (1 << 2)
        out 0x21, al
        in al, 0xa1
        and al, 0xff - (1 << 1)
        out 0xa1, al
        mov dx, COM1 + 1
        mov al, 1                       ; interrupt when a byte has come
        out dx, al
        mov dl, (COM1 + 4) & 0xff
        mov al, 0x0b                    ; DTR, RTS, OUT2: lets the interrupt through
        out dx, al

        mov si, banner
        call print
new_line:
        mov di, LINE
more:   cli
        call check_button
        mov dx, COM1 + 5
        in al, dx
        test al, 1
        jnz take
        sti                             ; takes effect after the next instruction: no wake-up is lost
        hlt
        jmp more
take:   sti
        mov dl, COM1 & 0xff
        in al, dx
        cmp al, 13
        je ended
        cmp al, 10
        je ended
        cmp di, LIMIT
        je more
        stosb
        jmp more

ended:  cmp di, LINE                    ; the second byte of a CR LF
        je new_line
        mov byte [di], 0
        mov si, words
        call is_command
        je power_off
        call is_command
        je reset
        call is_command
        je panic
        call is_command
        je flood
        mov si, echo
        call print
        mov si, LINE
        call print
        call end_line
        jmp new_line

; ZF if the line begins with the word at SI; then BX is behind it in the line. SI moves to the next word.
is_command:
        mov bx, LINE
        mov cl, 0
.next:  lodsb
        test al, al
        jz .end
        cmp al, [bx]
        setne ah
        or cl, ah
        inc bx
        jmp .next
.end:   test cl, cl
        ret

reset:  mov al, 0xfe                    ; the keyboard controller's reset line
        out 0x64, al
        jmp $

panic:  mov si, panicked                ; first in words, as Linux does: QEMU may pause us at the next step
        call print
        mov dx, 0x505
        mov al, 1
        out dx, al
.stay:  hlt
        jmp .stay

flood:  xor cx, cx
.digit: movzx ax, byte [bx]
        inc bx
        sub al, '0'
        cmp al, 9
        ja .lines
        imul cx, cx, 10
        add cx, ax
        jmp .digit
.lines: test cx, cx
        jz new_line
        dec cx
        mov si, flooding
        call print
        mov bx, cx
        mov bp, 4
.hex:   rol bx, 4
        mov al, bl
        and al, 15
        cmp al, 10
        sbb al, 0x69
        das
        call put
        dec bp
        jnz .hex
        call end_line
        jmp .lines

; --- what is used by several --------------------------------------------------------------------------------

ignore: push ax
        mov al, 0x20
        out 0x20, al
        pop ax
        iret

check_button:
        mov dx, [pm]
        test dx, dx
        jz .none
        in ax, dx
        test ah, PWRBTN >> 8
        jnz power_off
.none:  ret

power_off:
        mov dx, [pm]
        add dx, 4                       ; PM1 control
        mov ax, SLP_EN
        out dx, ax
        jmp $

config_read:                            ; EAX: address → value
        mov dx, 0xcf8
        out dx, eax
        mov dl, 0xfc
        in eax, dx
        ret

end_line:
        mov si, newline
print:  lodsb
        test al, al
        jz .end
        call put
        jmp print
.end:   ret

put:    push ax                         ; a byte to the serial port, when it has room
        mov dx, COM1 + 5
.full:  in al, dx
        test al, 1 << 5
        jz .full
        pop ax
        mov dl, COM1 & 0xff
        out dx, al
        ret

banner:   db "maqet nano: guest ready"
newline:  db 13, 10, 0
echo:     db "echo: ", 0
flooding: db "flood ", 0
panicked: db "Kernel panic - not syncing: asked", 13, 10, 0
words:    db "poweroff", 0, "reset", 0, "panic", 0, "flood ", 0
pm:       dw 0

        times 510 - ($ - $$) db 0
        dw 0xaa55

; SeaBIOS does not boot from a disk of less than one cylinder (16 heads, 63 sectors); this is more.
        times 0x100000 - ($ - $$) db 0

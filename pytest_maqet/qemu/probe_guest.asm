; The guest that tells whether an accelerator really runs a guest: a boot sector that says "maqet" on the
; first serial port and resets the machine, which ends a QEMU started with -no-reboot. The firmware has by then
; gone through real, protected and system management mode; a /dev/kvm that only pretends gets stuck on the way.
;
; nasm -f bin probe_guest.asm -o probe_guest.img     (512 bytes; their beginning is BOOT_SECTOR in probe.py)

        bits 16
        org 0x7c00
        cli
        cld
        xor ax, ax
        mov ds, ax
        mov si, text
        mov dx, 0x3f8           ; COM1, the transmit register; QEMU's is always ready
next:   lodsb
        test al, al
        jz done
        out dx, al
        jmp next
done:   mov al, 0xfe            ; the keyboard controller's reset line
        out 0x64, al
stay:   hlt
        jmp stay
text:   db "maqet", 10, 0
        times 510-($-$$) db 0
        dw 0xaa55

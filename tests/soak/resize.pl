#!/usr/bin/perl
# Gives an X11 window another size again and again, as a user does who drags its corner and looks at it:
# the next size comes when some frames of the last one have been shown.
#
#   resize.pl DISPLAY NOT-NAME FRAMES
#
# The window is the one that the window manager manages and whose name does not match NOT-NAME. There is
# no X11 library in a small guest, so this speaks the protocol itself.
use strict;
use warnings;
use IO::Socket::UNIX;
use Socket;

my ($display, $not, $frames) = @ARGV;
$display =~ s/^://;
my $x = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => "/tmp/.X11-unix/X$display")
    or die "no X server :$display: $!\n";

sub take {
    my ($size) = @_;
    my $data = '';
    while (length($data) < $size) {
        sysread($x, $data, $size - length($data), length($data)) or die "the X server has gone\n";
    }
    return $data;
}

sub send_request {
    my ($data) = @_;
    syswrite($x, $data) == length($data) or die "the X server does not listen\n";
}

# The next reply, error or event.
sub message {
    my $head = take(32);
    my $type = unpack('C', $head);
    return $type == 1 || $type == 35 ? $head . take(4 * unpack('x4 V', $head)) : $head;
}

# The next reply; undef for an error. Events pass by.
sub reply {
    while (1) {
        my $message = message();
        my $type = unpack('C', $message);
        return undef if $type == 0;
        return $message if $type == 1;
    }
}

# The reply to a request whose only argument is a name.
sub ask_by_name {
    my ($opcode, $name) = @_;
    my $size = length($name);
    send_request(pack('C C v v x2', $opcode, 0, 2 + int(($size + 3) / 4), $size) .
        $name . "\0" x (-$size % 4));
    return reply();
}

sub children {
    my ($window) = @_;
    send_request(pack('C C v V', 15, 0, 2, $window));
    my $reply = reply() or return ();
    return unpack('x32 V' . unpack('x16 v', $reply), $reply);
}

# A property's text; undef if it is not there.
sub property {
    my ($window, $name) = @_;
    send_request(pack('C C v V V V V V', 20, 0, 6, $window, $name, 0, 0, 64));
    my $reply = reply() or return undef;
    my ($format, $type, $length) = unpack('x C x6 V x4 V', $reply);
    return $type == 0 ? undef : substr($reply, 32, $length * $format / 8);
}

send_request(pack('a C v v v v x2', 'l', 0, 11, 0, 0, 0));
my $setup = take(8);
unpack('C', $setup) == 1 or die "the X server refuses us\n";
$setup = take(4 * unpack('x6 v', $setup));
my $own_id = unpack('x4 V', $setup);
my ($vendor_size, $formats) = unpack('x16 v x3 C', $setup);
my $root = unpack('V', substr($setup, 32 + ($vendor_size + 3 & ~3) + 8 * $formats));
my $state = unpack('x8 V', ask_by_name(16, 'WM_STATE'));
my ($has_present, $present) = unpack('x8 C C', ask_by_name(98, 'Present'));
$has_present or die "the X server has no Present\n";

sub find {
    my ($window) = @_;
    for my $child (children($window)) {
        my $name = property($child, 39);
        return $child if defined property($child, $state) && ($name // '') !~ /$not/;
        my $found = find($child);
        return $found if $found;
    }
    return 0;
}

my $window = 0;
for (my $i = 0; !$window && $i < 100; $i++) {
    select(undef, undef, undef, 0.2);
    $window = find($root);
}
$window or die "there is no such window\n";
# Of the window's frames: tell us when they have been shown.
send_request(pack('C C v V V V', $present, 3, 4, $own_id, $window, 2));
sub wait_for_frame {
    while (1) {
        my ($type, $extension, $event, $kind) = unpack('C C x6 v C', message());
        return if $type == 35 && $extension == $present && $event == 1 && $kind == 0;
    }
}

$| = 1;
print "resizing\n";
for (my $i = 0; ; $i++) {
    my ($width, $height) = (200 + $i * 37 % 300, 150 + $i * 53 % 250);
    send_request(pack('C C v V v x2 V V', 12, 0, 5, $window, 12, $width, $height));
    wait_for_frame() for 1 .. $frames;
    print "$i: $width x $height\n";
}

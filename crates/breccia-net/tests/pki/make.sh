#!/bin/sh
# Makes the certificates of the TLS tests anew. They protect nothing: the keys are public.
set -eu
cd "$(dirname "$0")"

key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"
}

authority() { # name
    key "$1"
    openssl req -x509 -new -key "$1.key" -subj "/CN=Breccia test $1" -days 36500 -out "$1.pem"
}

signed() { # name authority extensions
    key "$1"
    printf '%s\n' "$3" >extensions.tmp
    openssl req -new -key "$1.key" -subj "/CN=$1" -out request.tmp
    openssl x509 -req -in request.tmp -CA "$2.pem" -CAkey "$2.key" -set_serial "$4" -days 36500 \
        -extfile extensions.tmp -out "$1.pem"
    rm extensions.tmp request.tmp
}

authority authority
authority stranger-authority
signed server authority 'subjectAltName=DNS:localhost,IP:127.0.0.1' 2
signed client authority 'extendedKeyUsage=clientAuth' 3
signed stranger stranger-authority 'extendedKeyUsage=clientAuth' 4
rm stranger-authority.key

"""`python -m gemd` is the daemon."""

from gemd.daemon import main

if __name__ == "__main__":
    main()

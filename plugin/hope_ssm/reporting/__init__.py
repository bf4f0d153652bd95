"""What every report needs: tables, pictures, times, and words about the machine."""
